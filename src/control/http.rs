//! What is answered to which request.

use std::sync::Arc;

use axum::extract::{self, Request};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use tokio::sync::Mutex;

use crate::control::counts::Counts;
use crate::control::sampler::{ANSWER_TIMEOUT, Sample, Sampler, Standing};
use crate::control::{Facts, host, snapshot, text};
use crate::metrics::AdminRefusal;
use crate::reactor::Peers;

/// What answers are made of.
#[derive(Debug)]
pub(super) struct State {
    facts: Arc<Facts>,
    pub(super) counts: Arc<Counts>,
    /// One sample at a time: whoever waits for it gets the same one.
    sampler: Mutex<Sampler>,
}

impl State {
    pub(super) fn new(facts: Arc<Facts>, peers: Arc<Peers>, counts: Arc<Counts>) -> Self {
        Self {
            facts,
            counts,
            sampler: Mutex::new(Sampler::new(peers)),
        }
    }

    fn is_local(&self) -> bool {
        self.facts.admin.ip().to_canonical().is_loopback()
    }

    async fn sample(&self) -> Arc<Sample> {
        self.sampler.lock().await.sample().await
    }

    fn refuse(&self, reason: AdminRefusal, status: StatusCode, text: &'static str) -> Response {
        self.counts.refused(reason);
        (status, text).into_response()
    }
}

type Shared = extract::State<Arc<State>>;

/// Every path, behind what holds for all of them.
pub(super) fn router(state: &Arc<State>) -> Router {
    let router = Router::new()
        .route("/metrics", routing::get(metrics))
        .route("/healthz", routing::get(health))
        .route("/v1/snapshot", routing::get(status));
    #[cfg(test)]
    let router = router.route("/panic", routing::get(tests::panic));
    let check = middleware::from_fn_with_state(Arc::clone(state), check);
    router
        .fallback(nothing_here)
        .layer(check)
        .with_state(Arc::clone(state))
}

/// Turns away what is no question to this endpoint, and marks every answer as one of the moment.
async fn check(state: Shared, request: Request, next: Next) -> Response {
    state.counts.requested();
    let mut response = match *request.method() {
        Method::GET | Method::HEAD if is_meant(&state, &request) => next.run(request).await,
        Method::GET | Method::HEAD => state.refuse(
            AdminRefusal::Host,
            StatusCode::MISDIRECTED_REQUEST,
            "this answers to localhost and loopback addresses, and Host says something else\n",
        ),
        _ => {
            let refused = state.refuse(
                AdminRefusal::Method,
                StatusCode::METHOD_NOT_ALLOWED,
                "GET and HEAD only\n",
            );
            ([(ALLOW, "GET, HEAD")], refused).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Where other hosts can reach the endpoint, its name is what they call it.
fn is_meant(state: &State, request: &Request) -> bool {
    !state.is_local() || host::is_loopback(request.version(), request.uri(), request.headers())
}

async fn metrics(state: Shared) -> Response {
    let sample = state.sample().await;
    let page = text::metrics(&state.facts, &state.counts, &sample);
    ([(CONTENT_TYPE, text::CONTENT_TYPE)], page).into_response()
}

/// 200 if every reactor has answered just now or has ended in order.
async fn health(state: Shared) -> Response {
    let sample = state.sample().await;
    let ill = sample.reactors.iter().filter(|one| !one.standing.is_well());
    let lines: Vec<_> = ill
        .map(|reactor| match reactor.standing {
            Standing::Failed => format!("reactor {} has failed\n", reactor.name),
            _ => format!(
                "reactor {} did not answer within {ANSWER_TIMEOUT:?}\n",
                reactor.name
            ),
        })
        .collect();
    match lines.is_empty() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, lines.concat()).into_response(),
    }
}

async fn status(state: Shared) -> Response {
    if !state.is_local() {
        return state.refuse(
            AdminRefusal::Forbidden,
            StatusCode::FORBIDDEN,
            "an address that other hosts can reach serves /metrics and /healthz only; \
             listen on a loopback address for the rest\n",
        );
    }
    let sample = state.sample().await;
    let document = snapshot::snapshot(&state.facts, &state.counts, &sample);
    let line = format!("{document}\n");
    ([(CONTENT_TYPE, "application/json")], line).into_response()
}

async fn nothing_here(state: Shared) -> Response {
    state.refuse(
        AdminRefusal::Path,
        StatusCode::NOT_FOUND,
        "there are /metrics, /healthz and /v1/snapshot\n",
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::{Duration, Instant};

    use crate::Broker;

    pub(super) async fn panic() {
        panic!("a request has found a mistake");
    }

    /// The whole answer; empty if the connection ended without one.
    fn get(address: SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // A reset is an end like any other.
        let _ = socket.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn f9_a_panic_of_the_control_plane_is_counted_and_it_serves_again_while_delivery_goes_on() {
        let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
        let broker = builder.admin("127.0.0.1:0").unwrap().spawn().unwrap();
        let address = broker.admin_addr().unwrap();
        let mut subscription = broker.subscribe(["a"]).unwrap();
        let mut deliver = || {
            broker.publish("a", b"1").unwrap();
            let message = subscription.receive(Duration::from_secs(30)).unwrap();
            assert_eq!(message.expect("it is delivered").data(), b"1");
        };
        deliver();
        for count in 1..=2 {
            assert_eq!(get(address, "/panic"), "", "it ends without an answer");
            deliver();
            let line = format!("\nhvlp_control_panics_total {count}\n");
            let deadline = Instant::now() + Duration::from_secs(30);
            // What came too early has ended with the panic.
            while !get(address, "/metrics").contains(&line) {
                assert!(Instant::now() < deadline, "it serves again and has counted");
            }
            assert!(get(address, "/healthz").ends_with("\r\n\r\nok\n"));
        }
        broker.stop();
        assert!(broker.join().unwrap().is_conserved());
    }
}
