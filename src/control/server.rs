//! The loop of the admin endpoint, and what one connection may take of it.
//!
//! One request per connection: 4 KiB of head within 2 s, an answer within 5 s. Whatever is left of
//! the input is discarded for a second at most: closed with unread input, the kernel would send a
//! reset, which destroys the answer.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::control::connections::{Admission, Connections, Progress, Stage, is_of_one};
use crate::control::http::{self, State};
use crate::metrics::AdminRefusal;

/// A request's line and headers.
const HEAD_LEN_MAX: usize = 4096;
/// As many headers as any scraper sends, several times over.
const HEADERS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// From accept to the last byte of the answer; a reactor may take one second of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_LEN_MAX: usize = 256 * 1024;
/// Without descriptors, accepting rests.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a stop waits for answers.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `stopped` has lost its sender.
pub(super) async fn serve(
    listener: &TcpListener,
    state: &Arc<State>,
    mut stopped: watch::Receiver<()>,
) {
    let router = http::router(state);
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            () = connections.ended() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    if connections.is_full() {
                        // Once to learn which of them have asked, once to let them say so.
                        yield_now().await;
                        yield_now().await;
                    }
                    admit(&mut connections, socket, state, &router);
                }
                Err(error) if is_of_one(&error) => {}
                Err(error) => {
                    tracing::debug!("the admin endpoint cannot accept: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Who has not taken the answer by then is left without it.
    let _ = timeout(STOP_TIMEOUT, connections.finish()).await;
}

fn admit(connections: &mut Connections, socket: TcpStream, state: &Arc<State>, router: &Router) {
    match connections.admit() {
        Admission::Room => {}
        Admission::Displaced => state.counts.refused(AdminRefusal::Displaced),
        Admission::Full => return state.counts.refused(AdminRefusal::ConnectionsMax),
    }
    let progress = Progress::default();
    let task = converse(socket, Arc::clone(state), router.clone(), progress.clone());
    connections.add(progress, task);
}

/// One connection: one request, one answer.
async fn converse(socket: TcpStream, state: Arc<State>, router: Router, progress: Progress) {
    let router = TowerToHyperService::new(router);
    let began = progress.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        began.set(Stage::Answering);
        router.call(request)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service);
    let served = poll_fn(|context| connection.poll_without_shutdown(context));
    match timeout(ANSWER_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if let Some(reason) = refusal(&error) {
                state.counts.refused(reason);
            }
        }
        Err(_) => return state.counts.refused(AdminRefusal::AnswerTimeout),
    }
    progress.set(Stage::Answered);
    let socket = connection.into_parts().io.into_inner();
    // Nobody is left to be told about what goes wrong now.
    let _ = timeout(LINGER_TIMEOUT, linger(socket)).await;
}

/// What a connection was ended for, if it was the peer's doing and not simply its end.
fn refusal(error: &hyper::Error) -> Option<AdminRefusal> {
    if error.is_timeout() {
        Some(AdminRefusal::HeadTimeout)
    } else if error.is_parse_too_large() {
        Some(AdminRefusal::HeadMax)
    } else if error.is_parse() {
        Some(AdminRefusal::Malformed)
    } else {
        None
    }
}

/// Ends the stream, and reads until the peer has done so too.
async fn linger(socket: TcpStream) -> io::Result<()> {
    SockRef::from(&socket).shutdown(Shutdown::Write)?;
    let mut discarded = [0; 4096];
    let mut left = LINGER_LEN_MAX;
    while left > 0 {
        socket.readable().await?;
        match socket.try_read(&mut discarded) {
            Ok(0) => break,
            Ok(len) => left = left.saturating_sub(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
