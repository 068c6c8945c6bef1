//! The real agent process on a real kernel: started, stopped, killed, disturbed and lied to.
//!
//! Each test runs itself again inside private namespaces (see [`harness::world`]); where the machine permits none it says
//! `skipped`.

mod bad_input;
mod children;
mod control;
mod environment;
mod foreign;
mod harness;
mod lifecycle;
mod manual;
mod own_user;
mod people;
mod unit;
