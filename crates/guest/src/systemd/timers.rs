//! Timers that go by the calendar.
//!
//! When the clock of a machine jumps, systemd starts at once all that was due in between. So such
//! timers do not run while a machine lies in a snapshot: they are stopped before, and started anew
//! when the clock is right.

use tokio::time::Instant;
use zbus::message::Flags;
use zbus::{Message, OwnedObjectPath, OwnedVariant};

use super::bus::{Bus, MANAGER, MANAGER_INTERFACE, UNIT_INTERFACE};
use super::{Manager, SystemdError};

const TIMER_INTERFACE: &str = "org.freedesktop.systemd1.Timer";

/// What became of timers, by their names.
pub(crate) struct Stopped {
    /// They were stopped, and can be started.
    pub(crate) timers: Vec<String>,
    /// They go on, since nobody could start them again.
    pub(crate) left: Vec<String>,
}

impl Manager {
    /// Stops all timers that wait for a time of the calendar. Timers that count from the start of the
    /// system or of a unit know no clock, and go on.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub(crate) async fn stop_calendar_timers(
        &self,
        deadline: Instant,
    ) -> Result<Stopped, SystemdError> {
        let bus = self.bus(deadline).await?;
        let (mut stopped, mut left) = (Vec::new(), Vec::new());
        for (name, path) in active_timers(&bus).await? {
            if !bus.goes_by_calendar(&path).await? {
                continue;
            }
            // It would be forgotten when it stops.
            if bus.is_transient(&path).await? {
                left.push(name);
            } else {
                let body = (name.as_str(), "replace");
                bus.call(MANAGER, MANAGER_INTERFACE, "StopUnit", &body)
                    .await?;
                stopped.push((name, path));
            }
        }
        // They are many and end together; a wait for each on its own would be the sum.
        for (name, path) in &stopped {
            while bus.is_active(path).await? {
                if Instant::now() >= deadline {
                    return Err(SystemdError::TimedOut {
                        what: format!("unit {name} to stop"),
                        state: "active".into(),
                    });
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        let timers = stopped.into_iter().map(|(name, _)| name).collect();
        Ok(Stopped { timers, left })
    }
}

/// Names and objects of the timers that are waiting.
async fn active_timers(bus: &Bus) -> Result<Vec<(String, String)>, SystemdError> {
    type Listed = (
        String,
        String,
        String,
        String,
        String,
        String,
        OwnedObjectPath,
        u32,
        String,
        OwnedObjectPath,
    );
    let states = (vec!["active"],);
    let reply = bus
        .call(MANAGER, MANAGER_INTERFACE, "ListUnitsFiltered", &states)
        .await?;
    let units: Vec<Listed> = reply.body().deserialize()?;
    let timers = units.into_iter().filter(|unit| unit.0.ends_with(".timer"));
    Ok(timers.map(|unit| (unit.0, unit.6.to_string())).collect())
}

impl Bus {
    async fn goes_by_calendar(&self, path: &str) -> Result<bool, zbus::Error> {
        let value: OwnedVariant = self
            .property(path, TIMER_INTERFACE, "TimersCalendar")
            .await?;
        // An array of expressions with the time when each is due next.
        let specs = value.downcast_ref::<zbus::Array<'_>>();
        Ok(specs.is_ok_and(|specs| !specs.is_empty()))
    }

    async fn is_transient(&self, path: &str) -> Result<bool, zbus::Error> {
        let value = self.property(path, UNIT_INTERFACE, "Transient").await?;
        Ok(matches!(value.downcast_ref::<bool>(), Ok(true)))
    }

    async fn is_active(&self, path: &str) -> Result<bool, zbus::Error> {
        let properties = self.unit_properties(path).await?;
        let state = properties.get("ActiveState").and_then(super::bus::text);
        Ok(state.as_deref() != Some("inactive"))
    }
}

/// A call to start a unit that wants no answer, as bytes.
pub(crate) fn start_unit_message(unit: &str) -> Vec<u8> {
    let message = Message::method_call(MANAGER, "StartUnit")
        .with_flags(Flags::NO_REPLY_EXPECTED)
        .interface(MANAGER_INTERFACE)
        .build(&(unit, "replace"));
    // Only a name that D-Bus cannot carry fails, and systemd told it to us by D-Bus.
    message.map_or_else(|_| Vec::new(), |message| message.data().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_bytes_of_a_message() {
        let bytes = start_unit_message("fstrim.timer");
        // Little or big endian, method call, no reply expected, version 1.
        assert!(matches!(bytes[0], b'l' | b'B'));
        assert_eq!(&bytes[1..4], [1, 1, 1]);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("StartUnit") && text.contains("fstrim.timer"));
    }
}
