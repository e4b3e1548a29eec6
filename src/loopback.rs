//! TCP within one host, where there is no path to probe and nothing to pace.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use socket2::SockRef;

/// Takes the pacing off a TCP socket that is about to listen at, or to connect to, a loopback
/// address; leaves one with any other address as it is. A kernel whose default is BBR paces what it
/// sends over loopback too: a timer for every burst, and a third less throughput from one publisher
/// to one subscriber. Reno sends whatever the window holds, and is part of every Linux kernel.
///
/// It has to be done before: a connection that was paced once stays so, and what a listener accepts
/// inherits from it. Where an administrator has taken reno off
/// `net.ipv4.tcp_allowed_congestion_control` the kernel refuses, and its own choice stays.
pub fn take_pace_off(socket: &impl AsFd, address: SocketAddr) {
    #[cfg(target_os = "linux")]
    if address.ip().to_canonical().is_loopback() {
        let _ = SockRef::from(socket).set_tcp_congestion(b"reno");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (SockRef::from(socket), address);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn both_ends_of_a_loopback_connection_are_unpaced() -> io::Result<()> {
        for address in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().expect("an address");
            let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            take_pace_off(&listener, address);
            listener.bind(&address.into())?;
            listener.listen(1)?;
            let bound = listener.local_addr()?;
            let client = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            take_pace_off(&client, address);
            client.connect(&bound)?;
            let (accepted, _) = listener.accept()?;
            assert!(accepted.tcp_congestion()?.starts_with(b"reno"), "{address}");
            assert!(client.tcp_congestion()?.starts_with(b"reno"), "{address}");
        }
        Ok(())
    }

    #[test]
    fn a_socket_that_others_can_reach_keeps_the_kernels_choice() -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let before = socket.tcp_congestion()?;
        take_pace_off(&socket, ([0, 0, 0, 0], 0).into());
        assert_eq!(socket.tcp_congestion()?, before);
        Ok(())
    }
}
