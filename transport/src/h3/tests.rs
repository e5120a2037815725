//! Both ends over a real QUIC connection on loopback.

mod cancel;
mod drain;
mod exchange;
mod malformed;
mod tunnel;
mod upgrade;
