# A machine of a lab, booted and saved: the tests of `makeTest { snapshots = [ ... ]; }` restore it
# instead of booting it. It is built anew when the machine changes, and not when a test does.
#
#   bootSnapshot {
#     inherit pkgs lab;       # as for makeTest; the lab's tests do not matter
#     machine = "web";
#   }
#
# The output has the guest's memory: everybody who can read the store can read it.
{
  pkgs,
  # As docs/lab-file.md has it.
  lab,
  # The name of a VM of it.
  machine,
  # Boot with hardware virtualization. Such a snapshot is for hosts with the same processor alone.
  kvm ? false,
  # For the derivation.
  attributes ? { },
  machinist ? pkgs.machinist,
}:

let
  inherit (import ./features.nix { inherit pkgs; }) uidRangeOf;

  # What is not the machine's must not build it anew.
  machines = removeAttrs lab [ "test" ];

  # `name-2` is the second machine of `name` with a `count`.
  entry =
    lab.machine.${machine} or lab.machine.${
      builtins.head (builtins.match "(.*)-[0-9]+" machine)
    };
in
pkgs.runCommand "machinist-snapshot-${machine}"
  (
    {
      nativeBuildInputs = [ machinist ];
      requiredSystemFeatures =
        pkgs.lib.optional (uidRangeOf lab [ entry ]) "uid-range" ++ pkgs.lib.optional kvm "kvm";
      lab = builtins.toJSON machines;
      passAsFile = [ "lab" ];
    }
    // attributes
  )
  ''
    # A build has no home, and no /run.
    export HOME=$TMPDIR MACHINIST_CACHE=$TMPDIR/cache MACHINIST_RUNTIME=$TMPDIR/run
    cp "$labPath" lab.json
    machinist snapshot make --file lab.json --accel ${if kvm then "kvm" else "tcg"} \
      --output $out ${pkgs.lib.escapeShellArg machine}
  ''
