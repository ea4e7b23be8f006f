//! The metrics of a process that all client libraries of Prometheus have: `process_*`.

use std::fmt;
use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Makes the registry of the process, which has just started. It has no prefix.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process { started: Timestamp::now() }));
    registry
}

/// Read again for each scrape.
#[derive(Debug)]
struct Process {
    started: Timestamp,
}

impl Collector for Process {
    /// What a system does not tell has no sample.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "CPU time used, in user and system mode.";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Counter);
        let counter = encoder.encode_descriptor("process_cpu", help, unit, kind)?;
        let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        ConstCounter::new(used.as_secs_f64()).encode(counter)?;

        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = |key| bytes(&status, key);
        // One of them is the directory itself.
        let open = fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1));
        let limit = getrlimit(Resource::Nofile).current;
        let gauges = [
            ("start_time", START, Some(Unit::Seconds), Some(self.started.as_second())),
            ("resident_memory", RESIDENT, Some(Unit::Bytes), memory("VmRSS:")),
            ("virtual_memory", VIRTUAL, Some(Unit::Bytes), memory("VmSize:")),
            ("open_fds", OPEN, None, open.and_then(|open| i64::try_from(open).ok())),
            ("max_fds", MOST, None, limit.and_then(|limit| i64::try_from(limit).ok())),
        ];
        for (name, help, unit, value) in gauges {
            let name = format!("process_{name}");
            let gauge = encoder.encode_descriptor(&name, help, unit.as_ref(), MetricType::Gauge)?;
            if let Some(value) = value {
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        Ok(())
    }
}

const START: &str = "When the process started, as a Unix time.";
const RESIDENT: &str = "Memory in RAM.";
const VIRTUAL: &str = "Virtual memory.";
const OPEN: &str = "Open file descriptors.";
const MOST: &str = "The most open file descriptors that the system allows.";

/// A line of `/proc/self/status` such as `VmRSS: 12 kB`, in bytes.
fn bytes(status: &str, key: &str) -> Option<i64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: i64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tca-overlap\nVmSize:\t   12 kB\nVmRSS:\t    3 kB\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(3072));
        assert_eq!(bytes(status, "VmSize:"), Some(12288));
        assert_eq!(bytes(status, "VmSwap:"), None);
        assert_eq!(bytes("VmRSS: many kB", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn each_value_is_that_of_this_process() {
        let before = Timestamp::now().as_second();
        let text = crate::metrics::encode(&Registry::default(), &registry()).unwrap();
        let value = |name: &str| {
            let sample = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            sample.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
        };
        let whole = |name: &str| value(name).parse::<i64>().unwrap();
        assert!(value("process_cpu_seconds_total").parse::<f64>().unwrap() > 0.0, "{text}");
        assert!(whole("process_start_time_seconds") >= before, "{text}");
        let resident = whole("process_resident_memory_bytes");
        assert!(resident > 1 << 20, "{text}");
        assert!(resident < whole("process_virtual_memory_bytes"), "{text}");
        // Standard input, output and error.
        assert!(whole("process_open_fds") >= 3, "{text}");
        assert!(whole("process_open_fds") <= whole("process_max_fds"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
