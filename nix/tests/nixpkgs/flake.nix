{
  description = "As much of nixpkgs as machinist's flake asks for, without a network";

  outputs = _: { lib = import ./lib.nix; };
}
