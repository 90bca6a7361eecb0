//! A node as a process, and the shortest HTTP client that can talk to it: what tests of the whole program share.
//!
//! Nothing here sleeps: every wait is for a line, an answer or an exit, with a deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::measure::processor_time;

/// How long a node may take to say that it is ready before a test gives up. No measure: tests share a busy machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(180);

/// How long any other answer may take before a test gives up.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// How much of a process's standard error is kept for a message, in bytes.
const STDERR_KEPT: usize = 16 * 1024;

/// The program under test.
pub(crate) fn refuge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_refuge"));
    // The user's own configuration must not change what a test sees.
    command
        .env("XDG_CONFIG_HOME", "/nonexistent/refuge-tests")
        .stdin(Stdio::null());
    command
}

/// What a command line run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn of(command: &mut Command) -> io::Result<Self> {
        let output = command.output()?;
        Ok(Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// The line a node prints when it is ready (`refuge serve --json`).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Ready {
    /// The URL of the encrypted listener.
    pub(crate) https: Option<String>,
    /// The URL of the plain listener.
    pub(crate) http: Option<String>,
    pub(crate) node_id: String,
    /// Only while the node is unclaimed.
    pub(crate) claim_code: Option<String>,
}

/// A running `refuge serve`; killed when dropped.
pub(crate) struct Node {
    process: Process,
    pub(crate) ready: Ready,
    /// Processor time from the start of the process to its line.
    pub(crate) ready_after: Duration,
}

impl Node {
    /// Starts a node on a data folder and waits until it is ready.
    ///
    /// # Errors
    /// With what the node said, when it ends or is not ready in time.
    pub(crate) fn start(data: &Path) -> io::Result<Self> {
        Self::start_as(refuge(), data)
    }

    /// Like [`Node::start`], with a command of the caller's: under `strace`, with limits, with an environment.
    pub(crate) fn start_as(command: Command, data: &Path) -> io::Result<Self> {
        Self::start_listening(command, data, "127.0.0.1:0")
    }

    /// Like [`Node::start_as`], with HTTPS where `listen` says.
    pub(crate) fn start_listening(command: Command, data: &Path, listen: &str) -> io::Result<Self> {
        Self::start_with(command, data, &["--listen", listen])
    }

    /// Like [`Node::start_as`], with these flags, of which `--listen` is one.
    pub(crate) fn start_with(mut command: Command, data: &Path, flags: &[&str]) -> io::Result<Self> {
        command.arg("serve").arg("--data").arg(data).args(flags);
        command.args(["--plain-http", "127.0.0.1:0", "--json"]);
        let process = Process::start(command)?;
        let line = process.line_within(READY_WITHIN)?;
        let ready_after = processor_time(process.child.id());
        let ready =
            serde_json::from_str(&line).map_err(|error| io::Error::other(format!("{line}: {error}")))?;
        Ok(Self {
            process,
            ready,
            ready_after,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// # Errors
    /// As the operating system says.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.signal(signal)
    }

    /// The last of what the node logged.
    pub(crate) fn log(&self) -> String {
        self.process.stderr_tail()
    }

    /// The address of the plain listener.
    ///
    /// # Panics
    /// When the node has none.
    pub(crate) fn address(&self) -> SocketAddr {
        let url = self
            .ready
            .http
            .as_deref()
            .expect("a plain listener was asked for");
        let rest = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        rest.parse().expect("a loopback address")
    }

    /// A connection to the plain listener that sends this token.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn client(&self, token: &str) -> io::Result<Http> {
        let mut http = Http::connect(self.address())?;
        http.token = Some(token.to_owned());
        Ok(http)
    }

    /// Becomes the owner and returns a token that may everything.
    ///
    /// # Errors
    /// When the node is claimed already, or refuses.
    pub(crate) fn claim(&self) -> io::Result<String> {
        let code = self
            .ready
            .claim_code
            .as_deref()
            .ok_or_else(|| io::Error::other("it has an owner"))?;
        let mut http = Http::connect(self.address())?;
        let json = ("content-type", "application/json");
        let body = format!(r#"{{"account":"ada","code":"{code}","password":"correct horse battery"}}"#);
        let claimed = http
            .send("POST", "/api/claim", &[json], body.as_bytes())?
            .accepted()?;
        let cookie = claimed
            .header("set-cookie")
            .and_then(|cookie| cookie.split(';').next());
        let cookie = cookie.ok_or_else(|| io::Error::other("no cookie"))?.to_owned();
        let origin = format!("http://{}", self.address());
        let headers = [json, ("cookie", &cookie), ("origin", &origin)];
        let body = br#"{"label":"test","scopes":["admin"]}"#;
        let made = http.send("POST", "/api/tokens", &headers, body)?.accepted()?;
        let made: serde_json::Value = serde_json::from_slice(&made.body)?;
        Ok(made["token"]
            .as_str()
            .ok_or_else(|| io::Error::other("no token"))?
            .to_owned())
    }

    /// Ends the node at once, as the kernel would for lack of memory.
    ///
    /// # Errors
    /// As the operating system says.
    pub(crate) fn kill(mut self) -> io::Result<ExitStatus> {
        self.process.child.kill()?;
        self.process.child.wait()
    }

    /// Waits for the end of a node that was told to end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) fn ended(self) -> io::Result<ExitStatus> {
        self.process.exit_within(ANSWER_WITHIN)
    }

    /// Asks the node to end, and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) fn terminate(self) -> io::Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.exit_within(ANSWER_WITHIN)
    }
}

/// A child whose output is read as it comes.
pub(crate) struct Process {
    child: Child,
    lines: Mutex<Receiver<String>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// # Errors
    /// When it can't be started.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut errors = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(got @ 1..) = errors.read(&mut piece) {
                let mut kept = kept.lock().expect("nobody panics with it");
                kept.extend_from_slice(&piece[..got]);
                let surplus = kept.len().saturating_sub(STDERR_KEPT);
                kept.drain(..surplus);
            }
        });
        Ok(Self {
            child,
            lines: Mutex::new(lines),
            stderr,
        })
    }

    /// The next line of its output.
    ///
    /// # Errors
    /// When there is none in time, with what it said on standard error.
    pub(crate) fn line_within(&self, deadline: Duration) -> io::Result<String> {
        self.lines
            .lock()
            .expect("nobody panics with it")
            .recv_timeout(deadline)
            .map_err(|error| io::Error::other(format!("no line ({error}): {}", self.stderr_tail())))
    }

    /// # Errors
    /// As the operating system says.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Waits for its end; one that does not end in time is killed.
    ///
    /// # Errors
    /// When it had to be killed.
    pub(crate) fn exit_within(mut self, deadline: Duration) -> io::Result<ExitStatus> {
        let ends_at = Instant::now() + deadline;
        let lines = self.lines.get_mut().expect("nobody panics with it");
        // The output ends with the process; what it says until then is not wanted any more.
        loop {
            match lines.recv_timeout(ends_at.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.child.wait(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let said = self.stderr_tail();
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("it did not end: {said}"),
                    ));
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last of what it said on standard error.
    pub(crate) fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().expect("nobody panics with it")).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One kept-alive connection to a plain listener.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    /// Sent with every request once set: a token.
    pub(crate) token: Option<String>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// This answer, where it is a success.
    ///
    /// # Errors
    /// With what it says otherwise.
    pub(crate) fn accepted(self) -> io::Result<Self> {
        if self.is_success() {
            Ok(self)
        } else {
            Err(io::Error::other(format!("{}: {}", self.status, self.text())))
        }
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http {
    /// # Errors
    /// When nobody listens.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            address,
            token: None,
        })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// When the connection ends before the answer is whole: then nobody knows whether the request was carried out.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.send_from(method, path, headers, body.len() as u64, body)
    }

    /// Like [`Http::send`], with a body that is read as it is sent.
    pub(crate) fn send_from(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        len: u64,
        mut body: impl Read,
    ) -> io::Result<Answer> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {len}\r\n",
            self.address
        );
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        // A refusal may come before the body is sent and close the connection: the answer is what counts then.
        let sent = io::copy(&mut body, stream);
        match (self.answer(method), sent) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
        }
    }

    fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut status = self.status_line()?;
        let mut headers = self.headers()?;
        while (100..200).contains(&status) {
            (status, headers) = (self.status_line()?, self.headers()?);
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            self.chunks(&mut answer.body)?;
        } else if let Some(len) = answer.header("content-length") {
            let len: u64 = len.parse().map_err(io::Error::other)?;
            if (&mut self.stream).take(len).read_to_end(&mut answer.body)? as u64 != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else {
            self.stream.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let len = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .map_err(io::Error::other)?;
            if (&mut self.stream).take(len).read_to_end(body)? as u64 != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.line()?;
            if len == 0 {
                return Ok(());
            }
        }
    }

    fn status_line(&mut self) -> io::Result<u16> {
        let line = self.line()?;
        line.split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other(line))
    }

    fn headers(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                return Ok(headers);
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}
