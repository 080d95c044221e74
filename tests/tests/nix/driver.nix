# A NixOS test as its framework makes one: a derivation in which the driver runs, by its own name,
# with a configuration file. Guests are Debian's, from /guest; what is bound into the sandbox belongs
# to nobody there, so their root is unpacked first.
{
  name,
  # A directory with start scripts, `run-NAME-vm` and `run-NAME-nspawn`.
  scripts,
  testScript,
  vms ? [ ],
  containers ? [ ],
  vlans ? [ ],
  timeout ? 200,
  # What happens before the driver runs.
  before ? "",
  arguments ? "",
  features ? [ "uid-range" ],
}:

let
  store = builtins.path {
    name = "start-scripts";
    path = scripts;
  };
  machines =
    kind: names:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = {
          inherit name;
          start_script = "${store}/run-${name}-${kind}";
        };
      }) names
    );
  config = builtins.toFile "driverConfiguration.json" (
    builtins.toJSON {
      vms = machines "vm" vms;
      containers = machines "nspawn" containers;
      inherit vlans;
      global_timeout = timeout;
      enable_ssh_backdoor = false;
      test_script = builtins.toFile "test-script" testScript;
    }
  );
in
derivation {
  name = "vm-test-run-${name}";
  system = builtins.currentSystem;
  requiredSystemFeatures = features;
  PATH = "/machinist:/usr/bin:/usr/sbin";
  # As for a user of root's on a Debian; NixOS has this from its environment.
  builder = "/bin/bash";
  args = [
    "-ec"
    ''
      ${before}
      mkdir $out
      export LOGFILE=/dev/null
      nixos-test-driver --config ${config} -o $out ${arguments}
      exit 0
    ''
  ];
}
