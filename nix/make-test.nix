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
  # For the derivation.
  attributes ? { },
  machinist ? pkgs.machinist,
}:

let
  machines = builtins.attrValues (lab.machine or { });
  images = builtins.attrValues (lab.image or { });
  defaults = lab.defaults or { };

  mayBeContainer = machine: (machine.kind or defaults.kind or "auto") != "vm";

  # An archive is unpacked with the owners of its files, which only root can do.
  isArchive = source: builtins.match "tar:.*" (toString source) != null;
  sources = map (image: image.source or "") images ++ map (machine: machine.image or "") machines;

  uidRange = builtins.any mayBeContainer machines || builtins.any isArchive sources;

  features = pkgs.lib.optional uidRange "uid-range" ++ pkgs.lib.optional kvm "kvm";
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
    cp "$labPath" lab.json
    machinist test --file lab.json --accel ${if kvm then "kvm" else "auto"} \
      --junit $out/junit.xml --logs $out/logs ${pkgs.lib.escapeShellArgs arguments}
  ''
