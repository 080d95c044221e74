# machinist, as NixOS's test framework asks for its driver: `nixos-test-driver.override { ... }` with
# what a test says of itself. What older and newer frameworks say besides is not needed here.
{
  machinist,
  qemu_test,

  qemu_pkg ? qemu_test,
  enableNspawn ? false,
  enableOCR ? false,
  extraPythonPackages ? (_: [ ]),

  # The driver that this one takes the place of.
  original ? null,
  ...
}:

let
  driver = machinist.override {
    qemu = qemu_pkg;
    enableContainers = enableNspawn;
    inherit enableOCR extraPythonPackages;
  };
in
driver
// {
  # By this one can tell which driver a test has.
  isMachinist = true;
  inherit original;
  meta = driver.meta // {
    mainProgram = "nixos-test-driver";
  };
}
