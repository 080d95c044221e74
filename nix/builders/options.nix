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
    enable = flag true "Whether it is there. One that is switched off keeps its store.";
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
    cold = flag false "Whether a VM boots at each start, in place of being restored from its snapshot.";
    hostStore = mkOption {
      type = types.either types.bool types.str;
      default = false;
      description = "Whether its builds read what the host's Nix has in its store, or the store of the Nix in that directory, in place of copying it.";
    };
    system = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = ''
        The NixOS system that its machine runs, in place of machinist's own: a toplevel, such as
        `nixosConfigurations.builder.config.system.build.toplevel`. `supportedFeatures` has to say what that offers.
      '';
    };
    kernel = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "The kernel of a VM with `system`, where it is not the system's own.";
    };
    initrd = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "The initrd that belongs to it. It is looked at, and machinist's own runs in its place.";
    };

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

  # Where `machinist` has root's builders, unless it is told otherwise.
  roots = "/var/lib/machinist/builders";
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
    directory = mkOption {
      type = types.str;
      default = roots;
      description = "Where builders keep their stores.";
    };
    builders = mkOption {
      type = types.attrsOf (types.submodule builder);
      default = { };
      description = "Machines that build for Nix: started by the first build, stopped when nobody uses them.";
    };
  };

  inherit builder program;

  # Those that are switched on.
  builders = removeAttrs cfg.builders (
    builtins.filter (name: !cfg.builders.${name}.enable) (builtins.attrNames cfg.builders)
  );

  # A builder's directory.
  directory = name: "${cfg.directory}/${name}";

  # What Nix's daemon calls it: where it looks by itself, its name is enough.
  called = name: if cfg.directory == roots then name else directory name;

  # The command that makes a builder, or gives one that is there these options.
  create =
    name: it:
    lib.escapeShellArgs (
      lib.optionals (cfg.directory != roots) [
        "env"
        "MACHINIST_BUILDERS=${cfg.directory}"
      ]
      ++ [
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
      ++ argument "--system" it.system
      ++ argument "--kernel" it.kernel
      ++ argument "--initrd" it.initrd
      ++ lib.optional (!it.network) "--no-network"
      ++ lib.optional it.cold "--cold"
      ++ lib.optional (it.hostStore != false) (
        if it.hostStore == true then "--host-store" else "--host-store=${it.hostStore}"
      )
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
    hostName = "localhost?remote-program=${program}%20connect%20${called name}";
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

  registered = builtins.filter (name: builders.${name}.register) (builtins.attrNames builders);
  external = builtins.filter (name: builders.${name}.external != [ ]) (builtins.attrNames builders);

  # Nix's settings, on both systems.
  nix = {
    buildMachines = map (name: buildMachine name builders.${name}) registered;
    distributedBuilds = lib.mkIf (registered != [ ]) true;
    settings = lib.mkIf (external != [ ]) {
      extra-experimental-features = [ "external-builders" ];
      external-builders = builtins.toJSON (
        map (name: {
          systems = builders.${name}.external;
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
    }) (builtins.attrNames builders)
    ++ map (name: {
      assertion = !builtins.elem pkgs.stdenv.hostPlatform.system builders.${name}.external;
      message = "services.machinist.builders.${name}.external: with the host's own system, it would get every build of the host";
    }) external;
}
