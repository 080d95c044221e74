# The program with all that it runs, and under the names that NixOS's test framework has for its
# driver. Only a script around the program: what a test asks for builds nothing anew.
{
  lib,
  runCommand,
  makeWrapper,
  machinist-unwrapped,

  coreutils,
  e2fsprogs,
  erofs-utils,
  gnutar,
  imagemagick,
  iproute2,
  kmod,
  python3,
  qemu,
  systemd,
  tesseract,
  util-linux,

  enableContainers ? true,
  enableOCR ? true,
  extraPythonPackages ? (_: [ ]),
}:

let
  python = python3.withPackages (
    packages:
    [
      # What `--interactive` and `--debug-hook-attach` use if it is there.
      packages.ptpython
      packages.remote-pdb
    ]
    ++ extraPythonPackages packages
  );

  programs = [
    coreutils
    e2fsprogs
    erofs-utils
    gnutar
    kmod
    python
    qemu
    util-linux
  ]
  ++ lib.optionals enableContainers [
    iproute2
    systemd
  ]
  ++ lib.optionals enableOCR [
    imagemagick
    tesseract
  ];

  site = "$out/${python3.sitePackages}";
in
runCommand "machinist-${machinist-unwrapped.version}"
  {
    pname = "machinist";
    inherit (machinist-unwrapped) version;
    nativeBuildInputs = [ makeWrapper ];
    # Who checks test scripts with mypy has this package among its inputs, and finds Python by it.
    propagatedBuildInputs = [ python3 ];
    passthru = {
      inherit python programs;
      unwrapped = machinist-unwrapped;
    };
    inherit (machinist-unwrapped) meta;
  }
  ''
    mkdir -p $out/bin $out/libexec/machinist ${site}
    # The program knows what to be by the name that it is called by.
    for name in machinist nixos-test-driver generate-driver-symbols; do
      ln -s ${machinist-unwrapped}/bin/machinist $out/libexec/machinist/$name
      makeWrapper $out/libexec/machinist/$name $out/bin/$name \
        --prefix PATH : ${lib.makeBinPath programs}
    done
    cp -r ${../python}/machinist ${../python}/test_driver ${site}/
    ln -s ${machinist-unwrapped}/share $out/share
    mkdir -p $out/nix-support
    echo "$propagatedBuildInputs" > $out/nix-support/propagated-build-inputs
  ''
