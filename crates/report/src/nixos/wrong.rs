//! A failure as lines: the script's own frames and the error, or all that Python says.

use machinist_events::{Failure, FailureKind, plain, plain_line};

/// The lines, outermost frame first.
pub(crate) fn lines(failure: &Failure) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(traceback) = full(failure) {
        lines.extend(plain(traceback).trim_end().lines().map(str::to_owned));
    } else {
        if !failure.frames.is_empty() {
            lines.push("Traceback (most recent call last):".to_owned());
        }
        for frame in &failure.frames {
            let (file, function) = (plain_line(&frame.file), plain_line(&frame.function));
            lines.push(format!(
                "  File \"{file}\", line {}, in {function}",
                frame.line
            ));
            lines.push(format!("    {}", plain_line(frame.source.trim())));
        }
        if !failure.frames.is_empty() {
            lines.push(String::new());
        }
        lines.extend(plain(&said(failure)).trim_end().lines().map(str::to_owned));
    }
    lines.extend(
        failure
            .also
            .iter()
            .map(|also| plain_line(also).into_owned()),
    );
    lines
}

/// What Python says: of the driver's own trouble all frames matter, of a failed check only the
/// script's.
fn full(failure: &Failure) -> Option<&str> {
    let machinery = failure.kind == FailureKind::Machinery;
    let traceback = failure.traceback.as_deref()?;
    (machinery || failure.frames.is_empty()).then_some(traceback)
}

/// `RequestedAssertionFailed: ...`.
fn said(failure: &Failure) -> String {
    let message = &failure.message;
    match &failure.exception {
        Some(class) if !message.starts_with(class.as_str()) => format!("{class}: {message}"),
        _ => message.clone(),
    }
}

/// The first line of what went wrong.
pub(crate) fn summary(failure: &Failure) -> String {
    let text = plain(&failure.message);
    text.lines().next().unwrap_or("test case failed").to_owned()
}
