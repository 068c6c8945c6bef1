//! Counting what clients see, in buckets of 100 ms.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::capture::{BUCKET, bucket_of, ceil_bucket, lock};

/// Counters that clients add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Started,
    Errors,
    Retries,
    Resets,
    Timeouts,
    Lost,
    Bytes,
    ChecksumErrors,
    Sessions,
    Logouts,
    Refused,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    started: u64,
    ok: u64,
    errors: u64,
    retries: u64,
    resets: u64,
    timeouts: u64,
    lost: u64,
    bytes: u64,
    checksum_errors: u64,
    sessions: u64,
    logouts: u64,
    refused: u64,
    /// Of operations that ended well, in microseconds.
    latencies: Vec<u32>,
    /// Longest gap that ended here.
    gap: Duration,
}

impl Cell {
    fn slot(&mut self, count: Count) -> &mut u64 {
        match count {
            Count::Started => &mut self.started,
            Count::Errors => &mut self.errors,
            Count::Retries => &mut self.retries,
            Count::Resets => &mut self.resets,
            Count::Timeouts => &mut self.timeouts,
            Count::Lost => &mut self.lost,
            Count::Bytes => &mut self.bytes,
            Count::ChecksumErrors => &mut self.checksum_errors,
            Count::Sessions => &mut self.sessions,
            Count::Logouts => &mut self.logouts,
            Count::Refused => &mut self.refused,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    cells: Vec<Cell>,
    /// Since when each client that wants service has had no success.
    waiting: HashMap<u32, Duration>,
    /// Gaps of 300 ms and more: when they ended and how long they were.
    long: Vec<(Duration, Duration)>,
}

impl Inner {
    fn cell(&mut self, at: Duration) -> &mut Cell {
        let index = bucket_of(at);
        if self.cells.len() <= index {
            self.cells.resize_with(index + 1, Cell::default);
        }
        &mut self.cells[index]
    }

    /// Ends the wait of a client that wants service and begins the next; one that rests goes on resting.
    fn served(&mut self, client: u32, now: Duration) {
        if let Some(since) = self.waiting.get_mut(&client) {
            let since = std::mem::replace(since, now);
            self.close_gap(since, now);
        }
    }

    fn close_gap(&mut self, since: Duration, now: Duration) {
        let gap = now.saturating_sub(since);
        let cell = self.cell(now);
        cell.gap = cell.gap.max(gap);
        if gap >= BUCKET * 3 {
            self.long.push((now, gap));
        }
    }
}

/// What one 100 ms of a load were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Slice {
    pub(crate) ok: u64,
    pub(crate) errors: u64,
    pub(crate) lost: u64,
    pub(crate) p95_ms: Option<f64>,
}

/// A load's measurements.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

impl Recorder {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, inner: Mutex::new(Inner::default()) }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn add(&self, count: Count, number: u64) {
        *lock(&self.inner).cell(self.now()).slot(count) += number;
    }

    /// As [`Self::add`], for something that belongs to an earlier time.
    pub(crate) fn add_at(&self, at: Instant, count: Count, number: u64) {
        *lock(&self.inner).cell(at.saturating_duration_since(self.start)).slot(count) += number;
    }

    /// An operation of `client` ended well.
    pub(crate) fn ok(&self, client: u32, took: Duration) {
        let now = self.now();
        let mut inner = lock(&self.inner);
        inner.served(client, now);
        let cell = inner.cell(now);
        cell.ok += 1;
        cell.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// `client` got something (part of a transfer).
    pub(crate) fn progress(&self, client: u32, bytes: u64) {
        let now = self.now();
        let mut inner = lock(&self.inner);
        inner.served(client, now);
        inner.cell(now).bytes += bytes;
    }

    /// From now on `client` wants service.
    pub(crate) fn wants(&self, client: u32) {
        let now = self.now();
        lock(&self.inner).waiting.entry(client).or_insert(now);
    }

    /// `client` wants nothing for a while.
    pub(crate) fn rests(&self, client: u32) {
        let now = self.now();
        let mut inner = lock(&self.inner);
        if let Some(since) = inner.waiting.remove(&client) {
            inner.close_gap(since, now);
        }
    }

    /// Value of a metric of [`super::spec::LOAD_METRICS`] that clients measure, over `[from, to)`.
    pub(crate) fn metric(&self, name: &str, from: Duration, to: Duration) -> Option<f64> {
        let now = self.now();
        let inner = lock(&self.inner);
        let end = ceil_bucket(to).min(inner.cells.len());
        let cells = inner.cells.get(ceil_bucket(from).min(end)..end).unwrap_or_default();
        let sum = |of: fn(&Cell) -> u64| Some(cells.iter().map(of).sum::<u64>() as f64);
        match name {
            "started" => sum(|c| c.started),
            "ok" => sum(|c| c.ok),
            "errors" => sum(|c| c.errors),
            "retries" => sum(|c| c.retries),
            "resets" => sum(|c| c.resets),
            "timeouts" => sum(|c| c.timeouts),
            "lost" => sum(|c| c.lost),
            "bytes" => sum(|c| c.bytes),
            "checksum_errors" => sum(|c| c.checksum_errors),
            "sessions" => sum(|c| c.sessions),
            "logouts" => sum(|c| c.logouts),
            "refused" => sum(|c| c.refused),
            "p50_ms" => percentile(cells.iter().flat_map(|c| c.latencies.iter().copied()).collect(), 0.50),
            "p95_ms" => percentile(cells.iter().flat_map(|c| c.latencies.iter().copied()).collect(), 0.95),
            "max_gap_ms" => {
                let ended = cells.iter().map(|c| c.gap).max().unwrap_or_default();
                let across =
                    inner.long.iter().filter(|(at, gap)| *at >= from && at.saturating_sub(*gap) < to);
                let open = inner
                    .waiting
                    .values()
                    .filter(|since| **since < to)
                    .map(|since| now.min(to).saturating_sub(*since));
                let longest =
                    across.map(|(_, gap)| *gap).chain(open).chain([ended]).max().unwrap_or_default();
                Some(longest.as_secs_f64() * 1000.0)
            }
            _ => None,
        }
    }

    /// The whole series.
    pub(crate) fn slices(&self) -> Vec<Slice> {
        let inner = lock(&self.inner);
        let slice = |cell: &Cell| Slice {
            ok: cell.ok,
            errors: cell.errors,
            lost: cell.lost,
            p95_ms: percentile(cell.latencies.clone(), 0.95),
        };
        inner.cells.iter().map(slice).collect()
    }
}

/// Nearest rank, in milliseconds; None of nothing.
fn percentile(mut values: Vec<u32>, share: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_unstable();
    let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
    Some(f64::from(values[rank - 1]) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<u32> = (1..=100).map(|n| n * 1000).collect();
        assert_eq!(percentile(values.clone(), 0.5), Some(50.0));
        assert_eq!(percentile(values, 0.95), Some(95.0));
        assert_eq!(percentile(Vec::new(), 0.5), None);
    }

    #[test]
    fn a_client_that_never_succeeds_has_an_open_gap_and_one_that_rests_has_none() {
        let Some(start) = Instant::now().checked_sub(Duration::from_secs(10)) else { return };
        let recorder = Recorder::new(start);
        lock(&recorder.inner).waiting.insert(1, Duration::from_secs(4));
        let gap = |from, to| {
            recorder
                .metric("max_gap_ms", Duration::from_secs(from), Duration::from_secs(to))
                .unwrap_or_default()
        };
        assert!((gap(0, 9) - 5000.0).abs() < 1.0, "{}", gap(0, 9));
        assert!(gap(0, 4) < 1.0, "it did not want anything before");
        recorder.rests(1);
        assert!(gap(5, 30) > 5900.0, "the gap that ended is still seen");
        assert!(gap(20, 30) < 1.0);
    }

    #[test]
    fn a_late_answer_does_not_wake_a_client_that_rests() {
        let recorder = Recorder::new(Instant::now());
        recorder.wants(1);
        recorder.rests(1);
        recorder.ok(1, Duration::from_millis(1));
        assert!(lock(&recorder.inner).waiting.is_empty());
    }

    #[test]
    fn counts_belong_to_the_interval_in_which_they_happened() {
        let Some(start) = Instant::now().checked_sub(Duration::from_secs(10)) else { return };
        let recorder = Recorder::new(start);
        recorder.add_at(start + Duration::from_millis(2500), Count::Lost, 3);
        let lost = |from, to| recorder.metric("lost", Duration::from_secs(from), Duration::from_secs(to));
        assert_eq!(lost(2, 3), Some(3.0));
        assert_eq!(lost(3, 9), Some(0.0));
    }
}
