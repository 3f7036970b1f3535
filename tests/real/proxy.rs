//! Between a connector and a real system: records the calls that write, and cuts them on demand.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the connectors' sinks call to change something, by their bodies: Vendure's and Tryton's calls.
const WRITES: &[&str] = &[
    "updateProductVariants(",
    "addFulfillmentToOrder(",
    "transitionFulfillmentToState(",
    "cancelOrder(",
    "refundOrder(",
    "\"model.party.party.create\"",
    "\"model.sale.sale.create\"",
    "\"model.sale.sale.quote\"",
    "\"model.sale.sale.confirm\"",
];

/// Methods of Odoo that change something, as its addresses end.
const METHODS: &[&str] = &[
    "/load ",
    "/write ",
    "/reconcile ",
    "/button_validate ",
    "/action_confirm ",
    "/action_cancel ",
    "/action_post ",
];

/// What becomes of the next call that writes.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// The system never sees it.
    Before,
    /// The system answers, and nobody hears the answer.
    After,
    /// Nothing.
    Not,
}

/// A proxy on a port of its own. Its threads end with the test process.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    cuts: Mutex<VecDeque<Cut>>,
    writes: Mutex<Vec<String>>,
    authorization: Mutex<Option<String>>,
}

impl Proxy {
    /// Before the system at this base URL.
    pub fn start(upstream: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            upstream: upstream.trim_start_matches("http://").to_owned(),
            cuts: Mutex::default(),
            writes: Mutex::default(),
            authorization: Mutex::default(),
        });
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = served.clone();
                // A call that fails on either side ends its connection, which is what a cut is.
                std::thread::spawn(move || shared.pass(stream));
            }
        });
        Proxy { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts the next calls that write, one each.
    pub fn cut(&self, cuts: &[Cut]) {
        self.shared.cuts.lock().expect("sound").extend(cuts);
    }

    /// Bodies of the calls that wrote or were cut since the last time it was asked.
    pub fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.writes.lock().expect("sound"))
    }

    /// The last `authorization` that the connector showed.
    pub fn authorization(&self) -> String {
        let last = self.shared.authorization.lock().expect("sound").clone();
        last.expect("a call was made")
    }
}

impl Shared {
    /// One request and its answer; neither side keeps the connection.
    fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let (head, body) = read_request(&mut client)?;
        for line in head.lines() {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                *self.authorization.lock().expect("sound") = Some(value.to_owned());
            }
        }
        let text = String::from_utf8_lossy(&body);
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        let writes = WRITES.iter().any(|name| text.contains(name))
            || METHODS.iter().any(|method| first.contains(method))
            || first.starts_with("POST /admin/");
        let cut = writes
            .then(|| self.cuts.lock().expect("sound").pop_front())
            .flatten();
        if let Some(Cut::Before) = cut {
            self.writes.lock().expect("sound").push(text.into_owned());
            return Ok(());
        }
        let mut server = TcpStream::connect(&self.upstream)?;
        if writes {
            self.writes.lock().expect("sound").push(text.into_owned());
        }
        write!(server, "{first}\r\nconnection: close\r\n{rest}")?;
        server.write_all(&body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        match cut {
            Some(Cut::After) => Ok(()),
            _ => client.write_all(&answer),
        }
    }
}

/// Head, with the empty line that ends it, and body.
fn read_request(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8 << 10];
    let mut read = |bytes: &mut Vec<u8>| -> io::Result<()> {
        match stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        read(&mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length: usize = head
        .lines()
        .filter_map(|l| l.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    while bytes.len() < end + length {
        read(&mut bytes)?;
    }
    Ok((head, bytes.split_off(end)))
}
