# The program alone, which finds other programs in PATH.
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,

  # The agent, a static program for Linux, where this system cannot build it.
  agent ? null,
}:

let
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);

  # What the build reads, so that a change of a page builds nothing anew.
  needed = [
    "Cargo.lock"
    "Cargo.toml"
    "crates"
    "python"
    "tests"
    "xtask"
  ];
  root = toString ../.;
  filter =
    path: _type:
    let
      inside = builtins.substring (builtins.stringLength root + 1) (-1) path;
      top = builtins.head (builtins.split "/" inside);
    in
    builtins.elem top needed && baseNameOf path != "__pycache__";
in
rustPlatform.buildRustPackage {
  pname = "machinist-unwrapped";
  inherit (manifest.workspace.package) version;

  src = builtins.path {
    name = "machinist-source";
    path = ../.;
    inherit filter;
  };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [ "--package=machinist-cli" ];

  nativeBuildInputs = [ installShellFiles ];
  # The agent inside of machines is linked statically: their libraries are not ours.
  buildInputs = lib.optionals stdenv.hostPlatform.isLinux [ stdenv.cc.libc.static ];
  env = lib.optionalAttrs (agent != null) {
    MACHINIST_AGENT_BINARY = "${agent}/bin/machinist-agent";
  };

  # Most tests want machines; `cargo xtask test` runs those that do not.
  doCheck = false;

  postInstall = ''
    $out/bin/machinist man > machinist.1
    installManPage machinist.1
    for shell in bash fish zsh; do
      $out/bin/machinist completions $shell > machinist.$shell
      installShellCompletion --cmd machinist --$shell machinist.$shell
    done
  '';

  meta = {
    description = "Linux machines for tests: VMs and containers on one network, in a moment";
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "machinist";
    platforms = lib.platforms.linux;
  };
}
