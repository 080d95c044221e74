# Builders of a NixOS host, with their services. The sockets are systemd's; the first connection starts
# a service, and that starts the machine.
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

  # Before its socket: a directory with that alone would be none of a builder.
  made = name: {
    name = "machinist-builder-${name}-create";
    value = {
      description = "Builder ${name} for Nix, as it is declared";
      # A socket is there before most of the system is.
      unitConfig = {
        DefaultDependencies = false;
        RequiresMountsFor = cfg.directory;
      };
      after = [ "systemd-remount-fs.service" ];
      conflicts = [ "shutdown.target" ];
      before = [ "shutdown.target" ];
      script = shared.create name builders.${name};
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      };
    };
  };

  service = name: {
    name = "machinist-builder-${name}";
    value = {
      description = "Builder ${name} for Nix";
      # A new one would end builds that run. It is taken with the next start.
      restartIfChanged = false;
      serviceConfig = {
        ExecStart = "${program} builder serve ${directory name}";
        StandardInput = "socket";
        StandardOutput = "journal";
        StandardError = "journal";
        # Containers of builders have cgroups below, and their builds again.
        Delegate = true;
        KillMode = "mixed";
        TimeoutStopSec = 120;
      };
    };
  };
  socket = name: {
    name = "machinist-builder-${name}";
    value = {
      description = "Builder ${name} for Nix";
      wantedBy = [ "sockets.target" ];
      requires = [ "machinist-builder-${name}-create.service" ];
      after = [ "machinist-builder-${name}-create.service" ];
      listenStreams = [ "${directory name}/socket" ];
      socketConfig.SocketMode = "0600";
    };
  };

  externalService = name: {
    name = "machinist-external-${name}";
    value = {
      description = "External builds of Nix's for builder ${name}";
      path = [ config.nix.package ];
      restartIfChanged = false;
      serviceConfig = {
        ExecStart = "${program} external-builder serve ${directory name}";
        StandardInput = "socket";
        StandardOutput = "journal";
        StandardError = "journal";
        KillMode = "process";
      };
    };
  };
  externalSocket = name: {
    name = "machinist-external-${name}";
    value = {
      description = "External builds of Nix's for builder ${name}";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ "/run/machinist-external/${name}" ];
      socketConfig = {
        SocketMode = "0660";
        SocketGroup = "nixbld";
      };
    };
  };
in
{
  inherit (shared) options;

  config = lib.mkIf (builders != { }) {
    inherit (shared) assertions nix;
    environment.systemPackages = [ cfg.package ];
    systemd = {
      services = each made all // each service all // each externalService shared.external;
      sockets = each socket all // each externalSocket shared.external;
    };
  };
}
