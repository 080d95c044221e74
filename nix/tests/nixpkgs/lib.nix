# The functions of nixpkgs' library that machinist's Nix code calls, as they are documented there.
rec {
  genAttrs = names: make: builtins.listToAttrs (map (name: nameValue name (make name)) names);
  nameValue = name: value: { inherit name value; };

  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: attributes: if condition then attributes else { };

  escapeShellArg = word: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString word)}'";
  escapeShellArgs = words: builtins.concatStringsSep " " (map escapeShellArg words);
  concatStringsSep = builtins.concatStringsSep;
  makeBinPath = packages: builtins.concatStringsSep ":" (map (package: "${package}/bin") packages);

  mkIf = condition: content: if condition then content else { };
  mkOption = option: option // { _type = "option"; };
  mkEnableOption = description: mkOption { inherit description; };
  types = {
    package = "package";
    raw = "raw";
    bool = "bool";
    str = "string";
    path = "path";
    ints = genAttrs [ "positive" "unsigned" ] (name: "${name} integer");
    enum = values: "one of ${builtins.toJSON values}";
    nullOr = type: "${type} or null";
    either = one: other: "${one} or ${other}";
    listOf = type: "list of ${type}";
    attrsOf = type: { attributes = type; };
    submodule = module: module;
    functionTo = result: "function to ${result}";
  };

  licenses = genAttrs [ "asl20" "mit" ] (name: name);
  platforms.linux = [
    "aarch64-linux"
    "x86_64-linux"
  ];

  # What `callPackage` gives: a result whose arguments can be given anew.
  makeOverridable =
    make: arguments:
    let
      result = make arguments;
    in
    result // { override = other: makeOverridable make (arguments // other); };
}
