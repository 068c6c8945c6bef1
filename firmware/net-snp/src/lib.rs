//! UEFI Simple Network (UEFI Specification 2.10, chapter 24.1) as a driver of embassy-net.
//!
//! Polled: EDK2's packet event never fires, so whoever runs the stack polls it all the time and wakers are woken at once.
//! One frame is sent at a time, and its buffer is ours again before the next.
//!
//! Firmwares differ, and none of this is fatal: U-Boot refuses receive filters and says that there is no cable where there
//! is one; EDK2 shows one adapter under several handles, of which one can be opened, and none before it is asked to connect
//! its drivers.
#![no_std]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::task::Context;
use core::time::Duration;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use uefi::boot::{self, ScopedProtocol, SearchType};
use uefi::proto::network::snp::{NetworkState, ReceiveFlags, SimpleNetwork};

/// An Ethernet frame without its check sum.
const FRAME: usize = 1514;
/// Room for a VLAN tag and for drivers that hand over the check sum.
const BUFFER: usize = 1600;
/// How long a frame may take to leave.
const SENT_MOST: u32 = 2_000;
const SENT_STEP: Duration = Duration::from_micros(50);

/// An adapter, started. Stopped again when dropped.
pub struct Snp {
    sender: Sender,
    received: Box<[u8]>,
    mac: [u8; 6],
}

struct Sender {
    adapter: ScopedProtocol<SimpleNetwork>,
    frame: Box<[u8]>,
}

impl core::fmt::Debug for Snp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Snp").field("mac", &self.mac).finish_non_exhaustive()
    }
}

/// Every adapter that could be started, each once.
pub fn adapters() -> Vec<Snp> {
    // A firmware that was in a hurry to start from its disk (EDK2) has left the adapters without drivers.
    for handle in boot::locate_handle_buffer(SearchType::AllHandles).iter().flat_map(|handles| handles.iter())
    {
        // Most handles are no device.
        let _none = boot::connect_controller(*handle, &[], None, true);
    }
    let mut found: Vec<Snp> = Vec::new();
    for handle in boot::find_handles::<SimpleNetwork>().unwrap_or_default() {
        let Ok(adapter) = boot::open_protocol_exclusive::<SimpleNetwork>(handle) else { continue };
        if let Some(snp) = Snp::start(adapter)
            && found.iter().all(|other| other.mac != snp.mac)
        {
            found.push(snp);
        }
    }
    found
}

impl Snp {
    fn start(mut adapter: ScopedProtocol<SimpleNetwork>) -> Option<Self> {
        adapter.get()?;
        if adapter.mode().state == NetworkState::STOPPED {
            adapter.start().ok()?;
        }
        if adapter.mode().state == NetworkState::STARTED {
            adapter.initialize(0, 0).ok()?;
        }
        // Only a help: where it is refused, everything is received or nothing was filtered.
        let _refused = adapter.receive_filters(
            ReceiveFlags::UNICAST | ReceiveFlags::BROADCAST,
            ReceiveFlags::empty(),
            true,
            None,
        );
        let mode = adapter.mode();
        let mac = *mode.current_address.0.first_chunk::<6>()?;
        if mode.hw_address_size != 6 || mac == [0; 6] {
            return None;
        }
        let sender = Sender { adapter, frame: vec![0; BUFFER].into() };
        Some(Self { sender, received: vec![0; BUFFER].into(), mac })
    }

    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

impl Drop for Snp {
    fn drop(&mut self) {
        // The operating system's driver finds the adapter at rest; a firmware that refuses stops it itself at ExitBootServices.
        let _refused = self.sender.adapter.shutdown();
        let _refused = self.sender.adapter.stop();
    }
}

impl Driver for Snp {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        cx.waker().wake_by_ref();
        let length = self.sender.adapter.receive(&mut self.received, None, None, None, None).ok()?;
        let frame = self.received.get_mut(..length)?;
        Some((Received(frame), ToSend(&mut self.sender)))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Self::TxToken<'_>> {
        cx.waker().wake_by_ref();
        Some(ToSend(&mut self.sender))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        // What firmwares say of the cable is not to be relied on; DHCP asks until somebody answers.
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME;
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.mac)
    }
}

/// A frame that came.
#[derive(Debug)]
pub struct Received<'a>(&'a mut [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame to go.
pub struct ToSend<'a>(&'a mut Sender);

impl core::fmt::Debug for ToSend<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ToSend")
    }
}

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let Sender { adapter, frame } = self.0;
        let length = length.min(frame.len());
        let frame = &mut frame[..length];
        let result = f(frame);
        // A frame that is lost here is sent again by those above, as on any network.
        if adapter.transmit(0, frame, None, None, None).is_ok() {
            for _ in 0..SENT_MOST {
                match adapter.get_recycled_transmit_buffer_status() {
                    Ok(None) => boot::stall(SENT_STEP),
                    Ok(Some(_)) | Err(_) => break,
                }
            }
        }
        result
    }
}
