# What is built by the tests in tests/tests/nix, with packages that stand in for nixpkgs'. Guests come
# from /guest, which the sandbox shows.
let
  inherit (import ./evaluate.nix) flake pkgs;
  inherit (flake.lib) makeTest;
in
rec {
  inherit (pkgs) machinist nixos-test-driver;

  # A lab with containers, by the program and by nothing else of this repository.
  lab = makeTest {
    inherit pkgs;
    name = "lab";
    lab = {
      image.debian.source = "tar:/guest/root.tar";
      defaults.image = "debian";
      defaults.kind = "container";
      machine.web = { };
      machine.client = { };
      test = [
        {
          name = "steps";
          steps = [
            {
              machine = "web";
              wait = "port:80";
            }
            {
              machine = "client";
              run = "curl -fsS http://web/";
              stdout.contains = "Welcome to nginx";
            }
          ];
        }
        {
          name = "script";
          script = ./script.py;
        }
      ];
    };
  };

  # Services in a container that ask for sandboxes of their own.
  units = makeTest {
    inherit pkgs;
    name = "units";
    lab = {
      machine.m = {
        image = "tar:/guest/root.tar";
        kind = "container";
        files."/etc/systemd/system/nginx.service.d/strict.conf" = builtins.readFile ./strict.conf;
      };
      test = [
        {
          name = "units";
          script = ./units.py;
        }
      ];
    };
  };

  # A VM, whose boot is a derivation of its own, and tests that need not boot it.
  vmLab = {
    machine.v = {
      image = "tar:/guest/vm.tar";
      kind = "vm";
      memory = "512M";
    };
  };
  restored =
    script:
    makeTest {
      inherit pkgs;
      name = "restored";
      lab = vmLab // {
        test = [
          {
            name = "script";
            script = builtins.toFile "script.py" script;
          }
        ];
      };
      snapshots = [ "v" ];
    };

  # A lab whose test fails: there is no output, and the log says why.
  failing = makeTest {
    inherit pkgs;
    name = "failing";
    lab.machine.m = {
      image = "tar:/guest/root.tar";
      kind = "container";
    };
    lab.test = [
      {
        name = "fails";
        steps = [
          {
            machine = "m";
            run = "echo a word in the log; false";
          }
        ];
      }
    ];
  };

  # What the framework does with the driver's package before any test runs: names for a linter, and
  # modules for a type checker.
  checks = pkgs.runCommand "checks" { } ''
    ${nixos-test-driver}/bin/generate-driver-symbols
    export PYTHONPATH=${nixos-test-driver}/${pkgs.python3.sitePackages} PYTHONDONTWRITEBYTECODE=1
    python3 -c 'from test_driver.driver import Driver; from test_driver.machine import QemuMachine'
    cp driver-symbols $out
  '';

  # The driver of a NixOS test of an older nixpkgs, as its framework makes it, and what the module for
  # such tests makes of it.
  older = pkgs.runCommand "nixos-test-driver-older" { } ''
    mkdir -p $out/bin
    ln -s ${pkgs.nixos-test-driver.original}/bin/nixos-test-driver $out/bin/.nixos-test-driver-wrapped
    cat > $out/bin/nixos-test-driver <<EOF
    #!/bin/bash -e
    export testScript='$out/test-script'
    export vlans=
    export startScripts=
    exec -a "\$0" "$out/bin/.nixos-test-driver-wrapped" "\$@"
    EOF
    chmod +x $out/bin/nixos-test-driver
    cp ${./no-machines.py} $out/test-script
  '';
  exchanged =
    (flake.lib.nixosTestModule {
      config = {
        qemu.package = pkgs.qemu_test;
        enableOCR = false;
        extraPythonPackages = _: [ ];
      };
      hostPkgs = pkgs;
      inherit (pkgs) lib;
    }).options.driver.apply
      older;

  # As the framework runs it.
  older-test = pkgs.runCommand "vm-test-run-older" { requiredSystemFeatures = [ "nixos-test" ]; } ''
    mkdir -p $out
    export LOGFILE=/dev/null
    ${exchanged}/bin/nixos-test-driver -o $out
  '';
}
