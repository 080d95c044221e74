{
  description = "Linux machines for tests: VMs and containers on one network, in a moment";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem =
        make:
        nixpkgs.lib.genAttrs systems (
          system:
          make (
            import nixpkgs {
              inherit system;
              overlays = [ self.overlays.default ];
            }
          )
        );
    in
    {
      # `machinist`, and machinist in the place of nixpkgs' `nixos-test-driver`.
      overlays.default = import ./nix/overlay.nix;

      packages = forEachSystem (pkgs: {
        inherit (pkgs) machinist nixos-test-driver;
        default = pkgs.machinist;
      });

      # For hosts that build tests with containers.
      nixosModules.default = ./nix/nixos-module.nix;

      # Builders: `services.machinist.builders.NAME`. They need the overlay, or a `package`.
      nixosModules.builders = ./nix/builders/nixos.nix;
      darwinModules.builders = ./nix/builders/darwin.nix;

      lib = {
        # A lab as a derivation.
        makeTest = import ./nix/make-test.nix;

        # A VM of a lab, booted and saved for such tests.
        bootSnapshot = import ./nix/boot-snapshot.nix;

        # For tests of NixOS: `imports = [ machinist.lib.nixosTestModule ];` in the test itself.
        nixosTestModule = import ./nix/nixos-test-module.nix { inherit self; };
      };

      formatter = forEachSystem (pkgs: pkgs.nixfmt);
    };
}
