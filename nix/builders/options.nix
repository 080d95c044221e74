# What the modules of NixOS and nix-darwin have in common: the options, and what follows from them.
{
  lib,
  config,
  pkgs,
}:

let
  inherit (lib) mkOption types;
  cfg = config.services.machinist;

  number =
    default: description:
    mkOption {
      type = types.nullOr types.ints.positive;
      inherit default description;
    };
  word =
    default: description:
    mkOption {
      type = types.nullOr types.str;
      inherit default description;
    };
  words =
    default: description:
    mkOption {
      type = types.listOf types.str;
      inherit default description;
    };
  flag =
    default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };

  builder.options = {
    kind = mkOption {
      type = types.nullOr (
        types.enum [
          "container"
          "vm"
        ]
      );
      default = null;
      description = "What runs it; a container where one can run, else a VM.";
    };
    cores = number null "Its processors: 4, or as many as the host has.";
    memory = word null ''Its memory, such as "8G": that, or half of the host's.'';
    diskSize = word null ''How large a VM's store can become, such as "100G". It can grow later.'';
    maxJobs = number null "How many builds run at once: one for each processor.";
    idleTimeout = mkOption {
      type = types.either types.ints.unsigned types.str;
      default = 180;
      description = ''
        How long it runs with nothing to do: minutes, or a duration such as "30s"; 0 is for ever, "0s"
        stops it after each build.
      '';
    };
    accel = mkOption {
      type = types.enum [
        "auto"
        "kvm"
        "tcg"
      ];
      default = "auto";
      description = "What runs a VM's processors.";
    };
    network = flag true "Whether derivations with a fixed output have a network.";

    register = flag true "Whether Nix knows it by a machine line.";
    systems = words [ ] "The systems that it gets builds for: the host's processor, with Linux.";
    supportedFeatures = words [
      "benchmark"
      "big-parallel"
      "nixos-test"
      "uid-range"
    ] "The features that Nix may ask it for. `kvm` only where its builds have been seen to have it.";
    mandatoryFeatures = words [ ] "It gets only builds that ask for all of these, such as `nixos-test`.";
    speedFactor = number 1 "How fast it is, compared with other machines.";

    external = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = ''
        Systems whose builds Nix (2.32 and newer) gives to it as its external builder. On Linux never
        the host's own: it would get every build of the host.
      '';
    };
  };

  program = "${cfg.package}/bin/machinist";
  processor = builtins.head (builtins.split "-" pkgs.stdenv.hostPlatform.system);
in
rec {
  options.services.machinist = {
    package = mkOption {
      type = types.package;
      default = pkgs.machinist;
      description = "The machinist that runs builders.";
    };
    builders = mkOption {
      type = types.attrsOf (types.submodule builder);
      default = { };
      description = "Machines that build for Nix: started by the first build, stopped when nobody uses them.";
    };
  };

  inherit builder program;

  # The builders' directories. Nix's daemon looks there.
  directory = name: "/var/lib/machinist/builders/${name}";

  # The command that makes a builder, or gives one that is there these options.
  create =
    name: it:
    lib.escapeShellArgs (
      [
        program
        "builder"
        "create"
        name
        "--keep"
        "--idle-timeout"
        it.idleTimeout
        "--accel"
        it.accel
      ]
      ++ argument "--kind" it.kind
      ++ argument "--cores" it.cores
      ++ argument "--memory" it.memory
      ++ argument "--disk" it.diskSize
      ++ argument "--max-jobs" it.maxJobs
      ++ lib.optional (!it.network) "--no-network"
    );

  argument =
    name: value:
    lib.optionals (value != null) [
      name
      value
    ];

  # How Nix is told of it: no host, no key, no port.
  buildMachine = name: it: {
    protocol = "ssh-ng";
    hostName = "localhost?remote-program=${program}%20connect%20${name}";
    systems = if it.systems == [ ] then [ "${processor}-linux" ] else it.systems;
    maxJobs =
      if it.maxJobs != null then
        it.maxJobs
      else if it.cores != null then
        it.cores
      else
        1;
    inherit (it) speedFactor supportedFeatures mandatoryFeatures;
  };

  registered = builtins.filter (name: cfg.builders.${name}.register) (
    builtins.attrNames cfg.builders
  );
  external = builtins.filter (name: cfg.builders.${name}.external != [ ]) (
    builtins.attrNames cfg.builders
  );

  # Nix's settings, on both systems.
  nix = {
    buildMachines = map (name: buildMachine name cfg.builders.${name}) registered;
    distributedBuilds = lib.mkIf (registered != [ ]) true;
    settings = lib.mkIf (external != [ ]) {
      extra-experimental-features = [ "external-builders" ];
      external-builders = builtins.toJSON (
        map (name: {
          systems = cfg.builders.${name}.external;
          inherit program;
          args = [
            "external-builder"
            "run"
            name
          ];
        }) external
      );
    };
  };

  assertions =
    map (name: {
      assertion = builtins.match "[a-z]([a-z0-9-]*[a-z0-9])?" name != null;
      message = "services.machinist.builders: ${name} cannot be a builder's name";
    }) (builtins.attrNames cfg.builders)
    ++ map (name: {
      assertion = !builtins.elem pkgs.stdenv.hostPlatform.system cfg.builders.${name}.external;
      message = "services.machinist.builders.${name}.external: with the host's own system, it would get every build of the host";
    }) external;
}
