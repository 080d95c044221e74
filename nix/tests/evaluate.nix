# What can be said of the Nix code without building anything: `holds` is true, or an error that names
# what is not so.
let
  nixpkgs = {
    outPath = ./nixpkgs;
    lib = import ./nixpkgs/lib.nix;
  };
  flake = (import ../../flake.nix).outputs {
    self = flake;
    inherit nixpkgs;
  };

  inherit (builtins) all attrNames throw;

  check =
    name: condition:
    if condition then true else throw "not so: ${name}";

  pkgs = import nixpkgs.outPath { overlays = [ flake.overlays.default ]; };

  # The features that the derivation of a lab asks for.
  features =
    arguments:
    (flake.lib.makeTest (
      {
        inherit pkgs;
        name = "t";
      }
      // arguments
    )).requiredSystemFeatures;
  vm = {
    kind = "vm";
    image = "dir:/guest";
  };
  container = {
    kind = "container";
    image = "dir:/guest";
  };

  host = containerTests: (import ../nixos-module.nix) {
    config.machinist = { inherit containerTests; };
    inherit (pkgs) lib;
  };
  settings = (host true).config.nix.settings;

  # What a test's derivation is made from, once the module for tests has seen it.
  testModule = flake.lib.nixosTestModule {
    config = { };
    hostPkgs = pkgs;
    inherit (pkgs) lib;
  };
  derivationArgument = testModule.options.rawTestDerivationArg.apply (final: {
    inherit (final) name;
    requiredSystemFeatures = [
      "devnet"
      "uid-range"
    ];
  }) { name = "t"; };

  builders = import ./builders.nix { inherit pkgs check; };

  driver = pkgs.nixos-test-driver;
  asFrameworksAsk = driver.override {
    enableOCR = true;
    enableNspawn = true;
    qemu_pkg = pkgs.qemu;
    extraPythonPackages = _: [ ];
    # Of older frameworks.
    tesseract4 = null;
  };
in
{
  inherit
    builders
    flake
    pkgs
    settings
    ;

  holds =
    all (it: it) [
    (check "VMs alone ask for nothing" (features { lab.machine = { inherit vm; }; } == [ ]))
    (check "containers ask for user ids" (
      features { lab.machine = { inherit vm container; }; } == [ "uid-range" ]
    ))
    (check "what may be a container asks as one" (
      features { lab.machine.a.image = "dir:/guest"; } == [ "uid-range" ]
    ))
    (check "the lab's default kind counts" (
      features {
        lab = {
          defaults.kind = "vm";
          machine.a.image = "dir:/guest";
        };
      } == [ ]
    ))
    (check "an archive is unpacked by root" (
      features {
        lab = {
          image.i.source = "tar:/guest/root.tar";
          machine.a = vm // {
            image = "i";
          };
        };
      } == [ "uid-range" ]
    ))
    (check "kvm is asked for where it is wanted" (
      features {
        lab.machine = { inherit vm; };
        kvm = true;
      } == [ "kvm" ]
    ))

    (check "a snapshot is another derivation when its machine is, and not when a test is" (
      let
        drv = lab: (flake.lib.bootSnapshot {
          inherit pkgs lab;
          machine = "vm";
        }).drvPath;
        tested = test: { machine = { inherit vm; }; inherit test; };
      in
      drv (tested [ "one" ]) == drv (tested [ "another" ])
      && drv (tested [ ]) != drv { machine.vm = vm // { memory = "2G"; }; }
    ))
    (check "a snapshot asks for what its machine needs" (
      (flake.lib.bootSnapshot {
        inherit pkgs;
        lab.machine = { inherit container; vm = vm // { image = "tar:/guest/vm.tar"; }; };
        machine = "vm";
      }).requiredSystemFeatures == [ "uid-range" ]
      && (flake.lib.bootSnapshot {
        inherit pkgs;
        lab.machine = { inherit container vm; };
        machine = "vm";
      }).requiredSystemFeatures == [ ]
    ))

    (check "a host without the option is left alone" ((host false).config == { }))
    (check "a host's settings" (
      settings.extra-system-features == [ "uid-range" ]
      && settings.auto-allocate-uids
      && !settings.sandbox-fallback
    ))

    (check "no test asks for /dev/net" (
      derivationArgument == {
        name = "t";
        requiredSystemFeatures = [ "uid-range" ];
      }
    ))
    (check "the driver is exchanged" (driver.isMachinist && driver.original.name == "nixos-test-driver"))
    (check "a test's wishes change its wrapper, and build no program" (
      asFrameworksAsk.drvPath != driver.drvPath && asFrameworksAsk.unwrapped == driver.unwrapped
    ))
    (check "the flake has packages for each system" (
      all (system: flake.packages.${system}.default.name == "machinist-0.1.0") (attrNames flake.packages)
    ))
  ]
  && all (it: it) builders.checks;
}
