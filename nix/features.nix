# What the builds of labs ask of a host.
{ pkgs }:

rec {
  # An archive is unpacked with the owners of its files, which only root can do.
  isArchive = source: builtins.match "tar:.*" (toString source) != null;

  # Whether any of these machines, entries of the lab, needs a range of user ids.
  uidRangeOf =
    lab: machines:
    let
      images = lab.image or { };
      defaults = lab.defaults or { };
      sourceOf =
        machine:
        let
          name = toString (machine.image or defaults.image or "");
        in
        # The name of an attribute may not depend on the store; a source may.
        images.${builtins.unsafeDiscardStringContext name}.source or name;
      mayBeContainer = machine: (machine.kind or defaults.kind or "auto") != "vm";
    in
    builtins.any (machine: mayBeContainer machine || isArchive (sourceOf machine)) machines;
}
