# As much of nixpkgs as machinist's Nix code asks for. Its programs are those of the Debian that the
# sandbox shows, and the program itself is the one in /machinist, so that what is built from these
# packages can be built here, and run.
{
  system ? builtins.currentSystem,
  overlays ? [ ],
}:

let
  lib = import ./lib.nix;

  # A package whose programs are Debian's.
  debian = name: { outPath = "/usr"; };

  setup = ''
    # The setup hook of nixpkgs' makeWrapper, as far as it is used.
    makeWrapper() {
      local program=$1 wrapper=$2
      [ "$3" = --prefix ] && [ "$4 $5" = "PATH :" ] || return 1
      printf '#!/bin/bash\nexport PATH=%q:$PATH\nexec -a "$0" %q "$@"\n' "$6" "$program" > "$wrapper"
      chmod +x "$wrapper"
    }
    # The function of nixpkgs' standard environment, for one replacement.
    substituteInPlace() {
      [ "$2" = --replace-fail ] || return 1
      grep -qF -- "$3" "$1" || { echo "$1: no $3" >&2; return 1; }
      python3 - "$1" "$3" "$4" <<'PYTHON'
    import sys
    path, old, new = sys.argv[1:]
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace(old, new))
    PYTHON
    }
    # What nixpkgs does with programs that a build needs.
    for input in $nativeBuildInputs; do
      PATH=$input/bin:$PATH
    done
  '';

  runCommand =
    name: attributes: script:
    let
      hidden = [
        "meta"
        "passthru"
      ];
      # Nix itself knows passAsFile.
      built = derivation (
        {
          PATH = "/usr/bin:/usr/sbin";
        }
        // removeAttrs attributes hidden
        // {
          inherit name system;
          builder = "/bin/bash";
          args = [
            "-ec"
            # A last command that bash would become could end the build too early: Nix kills a
            # builder that has closed its output, as coreutils do shortly before they exit.
            (setup + script + "\nexit 0\n")
          ];
        }
      );
    in
    built
    // {
      meta = attributes.meta or { };
      passthru = attributes.passthru or { };
    }
    // attributes.passthru or { };

  base = self: {
    inherit lib system runCommand;

    callPackage =
      path: arguments:
      let
        function = if builtins.isFunction path then path else import path;
        known = builtins.intersectAttrs (builtins.functionArgs function) self;
      in
      lib.makeOverridable function (known // arguments);

    extend = overlay: packages (overlays ++ [ overlay ]);

    stdenv = {
      hostPlatform = {
        inherit system;
        isLinux = true;
      };
      cc.libc.static = debian "libc6-dev";
    };

    # Nothing is compiled here: the program is the one under test.
    rustPlatform.buildRustPackage =
      attributes:
      assert builtins.pathExists attributes.cargoLock.lockFile;
      runCommand "${attributes.pname}-${attributes.version}" { inherit (attributes) meta; } ''
        [ -e ${attributes.src}/crates/cli/Cargo.toml ]
        mkdir -p $out/bin $out/share/man
        ln -s /machinist/machinist $out/bin/machinist
      ''
      // {
        inherit (attributes) pname version;
      };

    python3 = debian "python3" // {
      sitePackages = "lib/python3/site-packages";
      withPackages = choose: debian (choose (lib.genAttrs [ "ptpython" "remote-pdb" ] debian));
    };

    # The driver of NixOS's test framework, which is never run here.
    nixos-test-driver = runCommand "nixos-test-driver" { } ''
      mkdir -p $out/bin
      printf '#!/bin/sh\necho "the original driver" >&2\nexit 1\n' > $out/bin/nixos-test-driver
      chmod +x $out/bin/nixos-test-driver
    '';

    nixfmt = runCommand "nixfmt" { } "mkdir $out";
  }
  // lib.genAttrs [
    "coreutils"
    "e2fsprogs"
    "erofs-utils"
    "gnutar"
    "imagemagick"
    "installShellFiles"
    "iproute2"
    "kmod"
    "makeWrapper"
    "qemu"
    "qemu_test"
    "systemd"
    "tesseract"
    "util-linux"
  ] debian;

  packages =
    all:
    let
      self = builtins.foldl' (before: overlay: before // overlay self before) (base self) all;
    in
    self;
in
packages overlays
