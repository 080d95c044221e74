# What the modules of builders come to, for hosts with some of them.
{ pkgs, check }:

let
  inherit (builtins) all attrNames elem mapAttrs;

  # A module with what its user has set, and the defaults of all else; of nixpkgs' module system as
  # much as that needs.
  evaluate =
    module: system: given: others:
    let
      arguments = {
        inherit (pkgs) lib;
        pkgs = pkgs // {
          stdenv.hostPlatform = { inherit system; };
        };
        config = others // {
          services.machinist = {
            package = "/machinist";
            directory = others.directory or evaluated.options.services.machinist.directory.default;
            builders = mapAttrs (_: it: defaults // checked it) given;
          };
        };
      };
      evaluated = import module arguments;
      inherit (evaluated.options.services.machinist.builders.type.attributes) options;
      defaults = mapAttrs (_: option: option.default) options;
      # An option that there is not is an error.
      checked = mapAttrs (name: value: if options ? ${name} then value else throw "no option ${name}");
    in
    evaluated.config;

  nixos = nixosWith { };
  nixosWith =
    others: given:
    evaluate ../builders/nixos.nix "x86_64-linux" given (
      { nix.package = "/nix-package"; } // others
    );
  darwin =
    given:
    evaluate ../builders/darwin.nix "aarch64-darwin" given {
      nix.package = "/nix-package";
      nix.enable = true;
      ids.gids.nixbld = 350;
    };

  plain = nixos { linux = { }; };
  tuned = nixos {
    tests = {
      kind = "vm";
      cores = 8;
      memory = "16G";
      diskSize = "200G";
      idleTimeout = "30s";
      network = false;
      mandatoryFeatures = [ "nixos-test" ];
      external = [ "i686-linux" ];
    };
    hidden.register = false;
  };
  moved = nixosWith { directory = "/big"; } {
    linux = {
      hostStore = true;
      cold = true;
    };
    own = {
      system = "/nix/store/system";
      kernel = "/nix/store/kernel";
    };
    off.enable = false;
  };
  # One that can be made anywhere.
  small = nixos {
    linux = {
      kind = "container";
      cores = 1;
      memory = "1G";
      maxJobs = 2;
      idleTimeout = "30s";
      network = false;
      external = [ "i686-linux" ];
    };
  };
  mac = darwin {
    linux = {
      maxJobs = 3;
      external = [ "aarch64-linux" ];
    };
  };
  job = mac.launchd.daemons.machinist-builder-linux.serviceConfig;
  holds = config: all (it: it.assertion) config.assertions;
in
{
  inherit plain tuned mac;

  # For the programs that are to understand them.
  create = small.systemd.services.machinist-builder-linux-create.script;
  settings = small.nix.settings;
  inherit (small) systemd;
  machines = small.nix.buildMachines;

  checks = [
    (check "a host without builders is left alone" (nixos { } == { } && darwin { } == { }))
    (check "a builder has a machine line without SSH" (
      plain.nix.buildMachines == [
        {
          protocol = "ssh-ng";
          hostName = "localhost?remote-program=/machinist/bin/machinist%20connect%20linux";
          systems = [ "x86_64-linux" ];
          maxJobs = 1;
          speedFactor = 1;
          supportedFeatures = [
            "benchmark"
            "big-parallel"
            "nixos-test"
            "uid-range"
          ];
          mandatoryFeatures = [ ];
        }
      ]
      && plain.nix.distributedBuilds
      && plain.nix.settings == { }
      && holds plain
    ))
    (check "a builder is made before its socket" (
      elem "machinist-builder-linux-create.service" plain.systemd.sockets.machinist-builder-linux.after
      && plain.systemd.sockets.machinist-builder-linux.listenStreams == [
        "/var/lib/machinist/builders/linux/socket"
      ]
      && plain.systemd.services.machinist-builder-linux.serviceConfig.Delegate
      && attrNames plain.systemd.sockets == [ "machinist-builder-linux" ]
    ))
    (check "only those that Nix is to know are told to it" (
      map (it: it.maxJobs) tuned.nix.buildMachines == [ 8 ]
      && (builtins.head tuned.nix.buildMachines).mandatoryFeatures == [ "nixos-test" ]
      && tuned.systemd.services ? machinist-builder-hidden
    ))
    (check "one that is switched off is not there, and others lie where they are told to" (
      attrNames moved.systemd.sockets == [
        "machinist-builder-linux"
        "machinist-builder-own"
      ]
      && moved.systemd.sockets.machinist-builder-linux.listenStreams == [ "/big/linux/socket" ]
      && builtins.match ".*MACHINIST_BUILDERS=/big.*--cold.*--host-store.*" moved.systemd.services.machinist-builder-linux-create.script
      != null
      && builtins.match ".*--system.*/nix/store/system.*--kernel.*/nix/store/kernel.*" moved.systemd.services.machinist-builder-own-create.script
      != null
      && (builtins.head moved.nix.buildMachines).hostName
      == "localhost?remote-program=/machinist/bin/machinist%20connect%20/big/linux"
    ))
    (check "external builds have a socket for builds' users" (
      tuned.systemd.sockets.machinist-external-tests.socketConfig == {
        SocketMode = "0660";
        SocketGroup = "nixbld";
      }
      && builtins.fromJSON tuned.nix.settings.external-builders == [
        {
          systems = [ "i686-linux" ];
          program = "/machinist/bin/machinist";
          args = [
            "external-builder"
            "run"
            "tests"
          ];
        }
      ]
    ))
    (check "the host's own builds are not given away" (
      !holds (nixos { linux.external = [ "x86_64-linux" ]; })
      && holds tuned
    ))
    (check "names that cannot be are refused" (!holds (nixos { "No name" = { }; })))
    (check "a Mac's job is started by its socket, and not kept alive" (
      job.Sockets.builder.SockPathMode == 384
      && job.inetdCompatibility.Wait
      && !(job ? KeepAlive)
      && (builtins.head mac.nix.buildMachines).systems == [ "aarch64-linux" ]
      && (builtins.head mac.nix.buildMachines).maxJobs == 3
      && mac.launchd.daemons.machinist-external-linux.serviceConfig.Sockets.builds.SockPathGroup == 350
      && holds mac
    ))
  ];
}
