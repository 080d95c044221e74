//! Images, and what machines add to them.

use std::collections::BTreeMap;

use super::{Reader, parsed, strings};
use crate::problem::Problem;
use crate::shape::{near, parse_mode};
use crate::source::{Span, Value};
use crate::types::{AddedFile, FileContents, Image, Source};

impl Reader<'_> {
    pub(super) fn read_images(&mut self) {
        for entry in self.section("image") {
            let path = format!("image.{}", entry.key);
            let source = entry.value.get("source");
            let found: Option<Source> = parsed(source);
            let image = Image {
                name: entry.key.clone(),
                // A source that does not parse has been told of; the image stands in for it, so
                // that machines which name it are not wrong too.
                source: found.clone().unwrap_or(Source::Debian {
                    suite: String::new(),
                }),
                packages: Vec::new(),
                files: BTreeMap::new(),
            };
            let image = self.add_to_image(image, &entry.value, &path);
            self.images.insert(entry.key.clone(), image);
        }
    }

    /// The image with the packages and files of `table`, an image's or a machine's.
    pub(super) fn add_to_image(&mut self, mut image: Image, table: &Value, path: &str) -> Image {
        let packages = table.get("packages");
        if let Some(value) = packages
            && !value.items().is_empty()
            && !matches!(image.source, Source::Debian { .. })
        {
            let message = format!("packages cannot be added to `{}`", image.source);
            self.problem(
                Problem::new(message, value.span.clone())
                    .help("only images that are made from Debian's packages take more of them")
                    .at(format!("{path}.packages")),
            );
        }
        image.packages.extend(strings(packages).map(str::to_owned));
        image.packages.sort();
        image.packages.dedup();
        for file in table.get("files").map_or(&[][..], Value::entries) {
            let path = format!("{path}.files.{}", file.key);
            if let Some(added) = self.read_file(&file.value, &path) {
                image.files.insert(file.key.clone(), added);
            }
        }
        image
    }

    fn read_file(&mut self, value: &Value, path: &str) -> Option<AddedFile> {
        if let Some(text) = value.str() {
            return Some(AddedFile {
                contents: FileContents::Text(text.to_owned()),
                mode: None,
            });
        }
        value.table()?;
        let text = value.get("text").and_then(Value::str);
        let from = value.get("from").and_then(Value::str);
        let contents = match (text, from) {
            (Some(text), None) => FileContents::Text(text.to_owned()),
            (None, Some(from)) => FileContents::Host(from.into()),
            _ => {
                let message = "a file has either `text` or `from`";
                self.problem(Problem::new(message, value.span.clone()).at(path));
                return None;
            }
        };
        let mode = value.get("mode").and_then(Value::str);
        Some(AddedFile {
            contents,
            mode: mode.and_then(|mode| parse_mode(mode).ok()),
        })
    }

    /// The image that a machine names. `span` is where something can be said about it.
    pub(super) fn find_image(
        &mut self,
        value: Option<&Value>,
        span: &Span,
        path: &str,
    ) -> Option<Image> {
        let Some(value) = value else {
            let message = format!("`{path}` has no image");
            self.problem(
                Problem::new(message, span.clone())
                    .help("add `image = \"debian:bookworm\"`, here or under `[defaults]`")
                    .at(path),
            );
            return None;
        };
        let text = value.str()?;
        if Source::looks_like(text) {
            let source: Source = text.parse().ok()?;
            return Some(Image {
                name: source.to_string(),
                source,
                packages: Vec::new(),
                files: BTreeMap::new(),
            });
        }
        if let Some(image) = self.images.get(text) {
            return Some(image.clone());
        }
        let near = near(text, self.images.keys().map(String::as_str));
        let how = format!(
            "define it with `[image.{text}]`, or use a source: \
             `debian:SUITE`, `host`, `dir:PATH` or `tar:PATH`"
        );
        let help = near.map_or_else(|| how.clone(), |near| format!("{near}\n{how}"));
        self.problem(
            Problem::new(format!("there is no image `{text}`"), value.span.clone())
                .help(help)
                .at(format!("{path}.image")),
        );
        None
    }
}
