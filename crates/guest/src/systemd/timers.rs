//! Timers that go by the calendar.
//!
//! When the clock of a machine jumps, systemd starts at once all that was due in between. So what is
//! due next is written down when a machine is saved, and those that were due meanwhile are stopped
//! before the clock of a restored machine is set, and started anew when it is right. All others never
//! hear of it.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zbus::message::Flags;
use zbus::{Message, OwnedObjectPath, OwnedVariant};

use super::bus::{Bus, MANAGER, MANAGER_INTERFACE, PROPERTIES, UNIT_INTERFACE};
use super::{Manager, SystemdError};

const TIMER_INTERFACE: &str = "org.freedesktop.systemd1.Timer";

/// A timer that waits for a time of the calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// The unit's name.
    pub unit: String,
    /// Its object on the bus.
    pub object: String,
    /// When it is due next, in microseconds since 1970, before what it is delayed by at random.
    pub due: u64,
    /// It is of no file: it would be forgotten if it were stopped.
    pub loose: bool,
}

impl Manager {
    /// All timers that wait for a time of the calendar. Timers that count from the start of the
    /// system or of a unit know no clock.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub(crate) async fn calendar_timers(
        &self,
        deadline: Instant,
    ) -> Result<Vec<Timer>, SystemdError> {
        let bus = self.bus(deadline).await?;
        let mut timers = Vec::new();
        for (unit, object) in active_timers(&bus).await? {
            if let Some(due) = bus.due_by_calendar(&object).await? {
                let loose = bus.is_transient(&object).await?;
                timers.push(Timer {
                    unit,
                    object,
                    due,
                    loose,
                });
            }
        }
        Ok(timers)
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
    /// The first time of the calendar that the timer waits for; none if it waits for none.
    async fn due_by_calendar(&self, path: &str) -> Result<Option<u64>, zbus::Error> {
        let value: OwnedVariant = self
            .property(path, TIMER_INTERFACE, "TimersCalendar")
            .await?;
        // An array of expressions with the time when each is due next.
        let specs: Vec<(String, String, u64)> = value.try_into().unwrap_or_default();
        Ok(specs.into_iter().map(|(_, _, due)| due).min())
    }

    async fn is_transient(&self, path: &str) -> Result<bool, zbus::Error> {
        let value = self.property(path, UNIT_INTERFACE, "Transient").await?;
        Ok(matches!(value.downcast_ref::<bool>(), Ok(true)))
    }
}

/// A call to start or stop a unit that wants no answer, as bytes.
pub(crate) fn job_message(method: &str, unit: &str) -> Vec<u8> {
    let message = Message::method_call(MANAGER, method)
        .with_flags(Flags::NO_REPLY_EXPECTED)
        .interface(MANAGER_INTERFACE)
        .build(&(unit, "replace"));
    bytes(message)
}

/// A call that is answered with the state of the unit that is this object, as bytes.
pub(crate) fn state_message(object: &str) -> Vec<u8> {
    let message = Message::method_call(object, "Get")
        .interface(PROPERTIES)
        .build(&(UNIT_INTERFACE, "ActiveState"));
    bytes(message)
}

/// Only a name that D-Bus cannot carry fails, and systemd told it to us by D-Bus.
fn bytes(message: Result<Message, zbus::Error>) -> Vec<u8> {
    message.map_or_else(|_| Vec::new(), |message| message.data().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_bytes_of_a_message() {
        let bytes = job_message("StartUnit", "fstrim.timer");
        // Little or big endian, method call, no reply expected, version 1.
        assert!(matches!(bytes[0], b'l' | b'B'));
        assert_eq!(&bytes[1..4], [1, 1, 1]);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("StartUnit") && text.contains("fstrim.timer"));
        let bytes = state_message("/org/freedesktop/systemd1/unit/fstrim_2etimer");
        // This one wants an answer.
        assert_eq!(&bytes[1..4], [1, 0, 1]);
        assert!(String::from_utf8_lossy(&bytes).contains("ActiveState"));
    }
}
