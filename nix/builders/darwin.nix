# Builders of a Mac with nix-darwin, with their services. The sockets are launchd's; the first
# connection starts a service, and that starts the machine. Nothing is kept alive: a service that has
# ended starts again with the next connection.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.machinist;
  shared = import ./options.nix { inherit lib config pkgs; };
  inherit (shared) builders program directory;

  each = make: names: builtins.listToAttrs (map make names);
  all = builtins.attrNames builders;

  # Octal: 0600, 0660.
  private = 384;
  ofGroup = 432;

  service = name: {
    name = "machinist-builder-${name}";
    value.serviceConfig = {
      Label = "machinist.builder.${name}";
      ProgramArguments = [
        program
        "builder"
        "serve"
        (directory name)
      ];
      Sockets.builder = {
        SockPathName = "${directory name}/socket";
        SockPathMode = private;
      };
      inetdCompatibility.Wait = true;
      ExitTimeOut = 120;
      StandardErrorPath = "${directory name}/launchd.log";
    };
  };

  externalService = name: {
    name = "machinist-external-${name}";
    value.serviceConfig = {
      Label = "machinist.external.${name}";
      ProgramArguments = [
        program
        "external-builder"
        "serve"
        (directory name)
      ];
      Sockets.builds = {
        SockPathName = "/var/run/machinist-external/${name}";
        SockPathMode = ofGroup;
        SockPathGroup = config.ids.gids.nixbld;
      };
      inetdCompatibility.Wait = true;
      AbandonProcessGroup = true;
      EnvironmentVariables.PATH = "${config.nix.package}/bin:/usr/bin:/bin:/usr/sbin:/sbin";
      StandardErrorPath = "${directory name}/external.log";
    };
  };
in
{
  inherit (shared) options;

  config = lib.mkIf (builders != { }) {
    inherit (shared) nix;
    assertions = shared.assertions ++ [
      {
        assertion = config.nix.enable;
        message = "services.machinist.builders: nix-darwin has to manage Nix (nix.enable), or write the machine line by `machinist builder register`";
      }
    ];
    environment.systemPackages = [ cfg.package ];
    # Before launchd makes the sockets.
    system.activationScripts.preActivation.text = lib.concatStringsSep "\n" (
      [ "mkdir -p /var/run/machinist-external" ]
      ++ map (name: shared.create name builders.${name}) all
    );
    launchd.daemons = each service all // each externalService shared.external;
  };
}
