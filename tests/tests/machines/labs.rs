//! Labs, and parts of labs, that several tests use. All of them boot one image, built once.

/// The packages of the image, for `machinist run`.
pub const PACKAGES: [&str; 4] = ["--package", "curl", "--package", "nginx-light"];

/// The image, for lab files.
pub const IMAGE: &str = r#"
[image.small]
source = "debian:bookworm"
packages = ["curl", "nginx-light"]
"#;

/// A lab of one machine `m` of this kind, with one test, `t`, that is `t.py`.
pub fn scripted(kind: &str) -> String {
    format!(
        "{IMAGE}\n[machine.m]\nkind = \"{kind}\"\nimage = \"small\"\nmemory = \"512M\"\n\
         [[test]]\nname = \"t\"\nscript = \"t.py\"\n"
    )
}

/// The arguments of `machinist run`, for that image.
pub fn run<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["run"];
    words.extend(PACKAGES);
    words.extend(options);
    words.push("--");
    words.extend(command);
    words
}

/// The arguments of `machinist run` for a machine that is still there when a file `go` has come to lie
/// beside the lab, and says so. It does not wait for ever.
pub fn until_told() -> Vec<&'static str> {
    const WAIT: &str = "for i in $(seq 3000); do
        test -e /lab/go && echo still here && exit; sleep 0.1; done; exit 1";
    run(&["--volume", ".:/lab"], &["sh", "-c", WAIT])
}
