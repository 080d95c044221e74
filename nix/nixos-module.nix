# What a NixOS host needs to build tests that have containers. Tests with VMs alone need nothing.
{
  config,
  lib,
  ...
}:

let
  cfg = config.machinist;
in
{
  options.machinist.containerTests = lib.mkEnableOption ''
    builds of tests that have containers: such a build is root of 65536 user ids of its own, which
    Nix calls `uid-range`. It needs no device and no access to the network
  '';

  config = lib.mkIf cfg.containerTests {
    nix.settings = {
      sandbox = true;
      # A build that goes on without its sandbox is no build of ours.
      sandbox-fallback = false;
      auto-allocate-uids = true;
      # Each of these adds to what is set elsewhere.
      extra-experimental-features = [
        "auto-allocate-uids"
        "cgroups"
      ];
      extra-system-features = [ "uid-range" ];
    };

    # From within a build no module can be loaded by name.
    boot.kernelModules = [
      "bridge"
      "overlay"
      "veth"
    ];
  };
}
