//! What is on a machine's X11 display, asked of its X server itself: Xvfb, Xvnc, or any other.
//!
//! The server is reached through the agent, by its socket in the machine. Neither a network nor a
//! program for taking pictures is needed there.

mod cookie;
mod wire;

use machinist_guest::{Agent, Command, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use cookie::Cookie;
use wire::{Screen, Setup};

/// Where X servers listen.
const SOCKETS: &str = "/tmp/.X11-unix";

/// Lists the files in which a display's key may lie.
const COOKIES: &str = "for file in /root/.Xauthority \"${XAUTHORITY:-}\" /run/user/*/*[xX]auth* \
    /run/user/*/gdm/Xauthority /var/run/lightdm/root/* /run/sddm/* /home/*/.Xauthority; do \
    if [ -s \"$file\" ]; then cat \"$file\"; fi; done";

/// No picture can be had of a display.
#[derive(Debug, thiserror::Error)]
pub(crate) enum X11Error {
    /// Nobody listens anywhere.
    #[error("it has no screen, and no X server runs in it")]
    NoServer,
    /// Nobody listens.
    #[error("there is no X server for display :{display}")]
    Absent {
        display: u32,
        #[source]
        source: machinist_guest::GuestError,
    },
    /// It does not let us in.
    #[error("the X server does not let us in: {0}")]
    Refused(String),
    /// It answers something else.
    #[error("the X server's answer makes no sense")]
    Nonsense,
    /// It does not give its picture.
    #[error("the X server gives no picture (error {0})")]
    NoPicture(u8),
    /// It went away.
    #[error("the X server is gone")]
    Gone(#[from] std::io::Error),
}

/// A picture, three bytes for each pixel: red, green, blue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) rgb: Vec<u8>,
}

impl Picture {
    /// As a file of the format PPM.
    pub(crate) fn ppm(&self) -> Vec<u8> {
        let mut ppm = format!("P6\n{} {}\n255\n", self.width, self.height).into_bytes();
        ppm.extend_from_slice(&self.rgb);
        ppm
    }
}

/// Takes a picture of all of the first display, which usually is `:0`.
pub(crate) async fn picture(agent: &Agent) -> Result<Picture, X11Error> {
    let listed = agent.output(&Command::argv(["ls", SOCKETS])).await;
    let names = listed.map(|output| output.stdout).unwrap_or_default();
    let display = first_display(&String::from_utf8_lossy(&names)).ok_or(X11Error::NoServer)?;
    let (mut stream, setup) = connect(agent, display).await?;
    let screen = setup.screens.first().ok_or(X11Error::Nonsense)?;
    stream.write_all(&wire::get_image(screen)).await?;
    // We asked for nothing that events would tell of, but some are told to everybody.
    let head = loop {
        let mut head = [0; 32];
        stream.read_exact(&mut head).await?;
        match head[0] {
            0 => return Err(X11Error::NoPicture(head[1])),
            1 => break head,
            _ => {}
        }
    };
    let length = wire::image_length(&head, screen).ok_or(X11Error::Nonsense)?;
    let mut pixels = vec![0; length];
    stream.read_exact(&mut pixels).await?;
    picture_of(&setup, screen, &pixels).ok_or(X11Error::Nonsense)
}

fn picture_of(setup: &Setup, screen: &Screen, pixels: &[u8]) -> Option<Picture> {
    Some(Picture {
        width: screen.width,
        height: screen.height,
        rgb: wire::rgb(setup, screen, pixels)?,
    })
}

/// The lowest display of which there is a socket, by the sockets' names.
fn first_display(names: &str) -> Option<u32> {
    let numbers = names.lines().filter_map(|name| name.strip_prefix('X'));
    numbers.filter_map(|number| number.parse().ok()).min()
}

/// Connects as root, whom most servers let in, and then with each key that lies around.
async fn connect(agent: &Agent, display: u32) -> Result<(Stream, Setup), X11Error> {
    let refused = match try_connect(agent, display, None).await {
        Err(X11Error::Refused(reason)) => reason,
        other => return other,
    };
    let found = agent.output(&Command::shell(COOKIES)).await;
    let files = found.map(|output| output.stdout).unwrap_or_default();
    for cookie in cookie::for_display(&files, display) {
        match try_connect(agent, display, Some(&cookie)).await {
            Err(X11Error::Refused(_)) => {}
            other => return other,
        }
    }
    Err(X11Error::Refused(refused))
}

async fn try_connect(
    agent: &Agent,
    display: u32,
    cookie: Option<&Cookie>,
) -> Result<(Stream, Setup), X11Error> {
    let socket = format!("{SOCKETS}/X{display}");
    let opened = agent.open_unix(socket).await;
    let mut stream = opened.map_err(|source| X11Error::Absent { display, source })?;
    stream.write_all(&wire::hello(cookie)).await?;
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; wire::setup_length(head)];
    stream.read_exact(&mut body).await?;
    if head[0] != 1 {
        let reason = &body[..usize::from(head[1]).min(body.len())];
        let reason = String::from_utf8_lossy(reason).trim().to_owned();
        return Err(X11Error::Refused(reason));
    }
    let setup = wire::setup(&body).ok_or(X11Error::Nonsense)?;
    Ok((stream, setup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_display_is_the_lowest() {
        assert_eq!(first_display("X10\nX7\nX\nlock\n"), Some(7));
        assert_eq!(first_display(""), None);
    }
}
