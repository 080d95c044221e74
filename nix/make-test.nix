# A lab as a derivation: to build it is to run its tests.
#
#   makeTest {
#     inherit pkgs;                       # with machinist's overlay
#     name = "web";
#     lab = {
#       image.debian.source = "tar:${debian}";
#       machine.web = { image = "debian"; kind = "container"; };
#       test = [ { name = "serves"; steps = [ { machine = "web"; wait = "port:80"; } ]; } ];
#     };
#   }
#
# The output has `junit.xml`, and `logs` with what the machines said.
{
  pkgs,
  # Of the derivation.
  name,
  # The lab file, as docs/lab-file.md has it. Paths are absolute, or paths of Nix.
  lab,
  # Ask for a builder with hardware virtualization; without, VMs run anywhere, by emulation.
  kvm ? false,
  # For `machinist test`, such as names of tests.
  arguments ? [ ],
  # VMs of the lab that are to be restored instead of being booted: by their names, or as
  # `bootSnapshot` makes them.
  snapshots ? [ ],
  # For the derivation.
  attributes ? { },
  machinist ? pkgs.machinist,
}:

let
  inherit (import ./features.nix { inherit pkgs; }) uidRangeOf;

  uidRange = uidRangeOf lab (builtins.attrValues (lab.machine or { }));

  features = pkgs.lib.optional uidRange "uid-range" ++ pkgs.lib.optional kvm "kvm";

  snapshotOf =
    it:
    if builtins.isString it then
      import ./boot-snapshot.nix {
        inherit
          pkgs
          lab
          kvm
          machinist
          ;
        machine = it;
      }
    else
      it;

  accel =
    if kvm then
      "kvm"
    # What was saved without, is restored without.
    else if snapshots != [ ] then
      "tcg"
    else
      "auto";
in
pkgs.runCommand "machinist-test-${name}"
  (
    {
      nativeBuildInputs = [ machinist ];
      requiredSystemFeatures = features;
      # JSON is what a lab file may be written in.
      lab = builtins.toJSON lab;
      passAsFile = [ "lab" ];
    }
    // attributes
  )
  ''
    # A build has no home, and no /run.
    export HOME=$TMPDIR MACHINIST_CACHE=$TMPDIR/cache MACHINIST_RUNTIME=$TMPDIR/run
    mkdir -p $out
    export MACHINIST_SNAPSHOTS=${builtins.concatStringsSep ":" (map snapshotOf snapshots)}
    cp "$labPath" lab.json
    machinist test --file lab.json --accel ${accel} \
      --junit $out/junit.xml --logs $out/logs ${pkgs.lib.escapeShellArgs arguments}
  ''
