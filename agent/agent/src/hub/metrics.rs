//! A hub's metrics: each school by its id, and nothing about people.

use seimon_ipc::control::Light;

use super::Hub;
use crate::metrics::Text;

impl Hub {
    pub(super) fn metrics(&self) -> String {
        let status = self.status(self.clock.now());
        let number = |light: Light| match light {
            Light::Green => 0.0,
            Light::Yellow => 1.0,
            Light::Red => 2.0,
        };
        let mut text = Text(String::new());
        text.family("light", "gauge", "0 green, 1 yellow, 2 red.");
        text.sample("light", &[], number(status.overall));
        text.family("generation", "gauge", "Generation of the network plan in force.");
        text.sample("generation", &[], status.generation as f64);
        text.family("dataplane_verified", "gauge", "1 if the kernel has what the plan says.");
        text.sample("dataplane_verified", &[], f64::from(u8::from(status.dataplane.verified)));
        text.family("dataplane_repairs_total", "counter", "Times that a foreign change was put right.");
        text.sample("dataplane_repairs_total", &[], status.dataplane.repairs as f64);
        text.family("hub_school_light", "gauge", "Of each school's end: 0 green, 1 yellow, 2 red.");
        for end in &status.schools {
            text.sample("hub_school_light", &[("school", end.school.as_str())], number(end.light));
        }
        text.family("hub_received_bytes_total", "counter", "Bytes from each school, inside its tunnel.");
        for end in &status.schools {
            text.sample("hub_received_bytes_total", &[("school", end.school.as_str())], end.received as f64);
        }
        text.family("hub_sent_bytes_total", "counter", "Bytes to each school, inside its tunnel.");
        for end in &status.schools {
            text.sample("hub_sent_bytes_total", &[("school", end.school.as_str())], end.sent as f64);
        }
        text.0
    }
}
