//! When nothing is started: the status page, on every network adapter that the firmware has.
//!
//! No tasks and no interrupts: all futures are polled in turn, as long as rescue lasts, and dropped at its end, which also
//! stops the adapters.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use embassy_futures::join::join4;
use embassy_futures::select::{Either, select};
use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, Stack, StackResources};
use embassy_time::Timer;
use seimon_boot::rescue::{Asked, answer, asked};
use seimon_net_snp::Snp;
use uefi::boot;
use uefi::proto::rng::Rng;

use crate::clock;
use crate::console::say;

/// DHCP's socket, and four connections at a time: one is soon held by a browser that opens it in advance.
const SOCKETS: usize = 5;
const PORT: u16 = 80;
/// A request and an answer take no longer.
const PATIENCE: embassy_time::Duration = embassy_time::Duration::from_secs(10);
/// Between looks at the adapters. Also when firmwares without interrupts do their own work.
const PAUSE: Duration = Duration::from_micros(200);

/// Shows what `page` makes, to whoever asks, for so long.
pub(crate) fn show(page: &dyn Fn() -> Vec<u8>, how_long: Duration) {
    let adapters = seimon_net_snp::adapters();
    if adapters.is_empty() {
        say(format_args!("no network: the boot firmware shows no adapter; this console is all there is"));
    }
    let mut seed = seed();
    let mut serving: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for adapter in adapters {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        serving.push(Box::pin(serve(adapter, seed, page)));
    }
    let all = poll_fn(|cx| {
        for future in &mut serving {
            // They end with the adapters' last word, never before.
            let _pending = future.as_mut().poll(cx);
        }
        Poll::Pending::<()>
    });
    let time = embassy_time::Duration::from_millis(u64::try_from(how_long.as_millis()).unwrap_or(u64::MAX));
    poll(select(all, Timer::after(time)));
}

fn poll<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        boot::stall(PAUSE);
    }
}

/// For numbers that should differ from start to start (DHCP's transaction, TCP's first sequence). No secret rests on it.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let random = boot::get_handle_for_protocol::<Rng>()
        .and_then(boot::open_protocol_exclusive::<Rng>)
        .and_then(|mut rng| rng.get_rng(None, &mut bytes));
    if let Err(error) = random {
        say(format_args!("the boot firmware has no random numbers ({}): taking the clock's", error.status()));
        return clock::count();
    }
    u64::from_le_bytes(bytes)
}

async fn serve(adapter: Snp, seed: u64, page: &dyn Fn() -> Vec<u8>) {
    let mac = adapter.mac();
    let mut resources = StackResources::<SOCKETS>::new();
    let (stack, mut runner) =
        embassy_net::new(adapter, Config::dhcpv4(embassy_net::DhcpConfig::default()), &mut resources, seed);
    let told = async {
        loop {
            stack.wait_config_up().await;
            if let Some(config) = stack.config_v4() {
                say(format_args!("status page: http://{}/", config.address.address()));
            }
            stack.wait_config_down().await;
            say(format_args!("adapter {mac:02x?}: address lost, asking again"));
        }
    };
    let four =
        join4(answering(stack, page), answering(stack, page), answering(stack, page), answering(stack, page));
    let people = select(told, four);
    select(runner.run(), people).await;
}

async fn answering(stack: Stack<'_>, page: &dyn Fn() -> Vec<u8>) {
    let (mut receive, mut send) = (vec![0; 2048], vec![0; 8192]);
    loop {
        let mut socket = TcpSocket::new(stack, &mut receive, &mut send);
        socket.set_timeout(Some(PATIENCE));
        if socket.accept(PORT).await.is_err() {
            continue;
        }
        if let Either::Second(()) = select(exchange(&mut socket, page), Timer::after(PATIENCE)).await {
            socket.abort();
        }
        // Sends what the abort left to send.
        let _closed = socket.flush().await;
    }
}

async fn exchange(socket: &mut TcpSocket<'_>, page: &dyn Fn() -> Vec<u8>) {
    let mut request = Vec::new();
    let mut piece = [0; 512];
    let what = loop {
        match asked(&request) {
            Asked::NotYet => {}
            done @ (Asked::Page | Asked::Head | Asked::Other) => break done,
        }
        match socket.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend_from_slice(&piece[..length]),
        }
    };
    let bytes = answer(what, &page());
    let mut left = bytes.as_slice();
    while !left.is_empty() {
        match socket.write(left).await {
            Ok(0) | Err(_) => return,
            Ok(length) => left = &left[length..],
        }
    }
    socket.close();
    let _sent = socket.flush().await;
}
