# A module for a NixOS test (not for its machines), by which machinist runs that test, with whatever
# release of nixpkgs: the framework's own driver is built as ever, with its checks of the script,
# and then its program is exchanged.
{ self }:
{
  config,
  hostPkgs,
  lib,
  ...
}:

let
  inherit (hostPkgs.extend self.overlays.default) nixos-test-driver;
  ours = nixos-test-driver.override {
    qemu_pkg = config.qemu.package;
    enableNspawn = (config.containers or { }) != { };
    inherit (config) enableOCR extraPythonPackages;
  };

  # The framework's driver is a script around a link to the program.
  exchanged =
    theirs:
    if theirs.isMachinist or false then
      theirs
    else
      hostPkgs.runCommand theirs.name
        {
          meta = theirs.meta or { };
          passthru = (theirs.passthru or { }) // {
            isMachinist = true;
            original = theirs;
          };
        }
        ''
          cp -r ${theirs} $out
          chmod -R u+w $out
          wrapped=$out/bin/.nixos-test-driver-wrapped
          if [ ! -L $wrapped ]; then
            echo "${theirs}/bin: machinist does not know this release's test driver" >&2
            exit 1
          fi
          ln -sf ${ours}/bin/nixos-test-driver $wrapped
          substituteInPlace $out/bin/nixos-test-driver \
            --replace-fail ${theirs}/bin/.nixos-test-driver-wrapped $wrapped
        '';

  # For a test with VMs and containers the framework asks for /dev/net in the sandbox, which its own
  # driver needs.
  withoutDevnet =
    attributes:
    attributes
    // lib.optionalAttrs (attributes ? requiredSystemFeatures) {
      requiredSystemFeatures = builtins.filter (it: it != "devnet") attributes.requiredSystemFeatures;
    };
in
{
  # The same options once more: what the framework puts into them goes through here.
  options.driver = lib.mkOption {
    type = lib.types.package;
    apply = exchanged;
  };
  options.rawTestDerivationArg = lib.mkOption {
    type = lib.types.functionTo lib.types.raw;
    apply = argument: final: withoutDevnet (argument final);
  };
}
