//! Just enough HTTP/1.1 to ask for one page and read at most 64 KiB of it. No I/O.

use super::authority;

/// Of the body.
const MOST: usize = 64 << 10;
/// Status line and headers.
const MOST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// A chunk's size line, extensions included.
const MOST_SIZE_LINE: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the path to ask for must begin with `/` and have neither spaces nor control characters")]
    Path,
    #[error("the name to ask for is not a host name")]
    Name,
    #[error("not an HTTP answer")]
    NotHttp,
    #[error("the answer's headers are too long")]
    LongHead,
    #[error("the answer's length is not clear")]
    Length,
    #[error("a chunk of the answer is not well-formed")]
    Chunk,
    #[error("closed before the answer was complete")]
    EndedEarly,
}

pub(super) fn request(name: &str, port: u16, path: &str) -> Result<Vec<u8>, HttpError> {
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(HttpError::Path);
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    {
        return Err(HttpError::Name);
    }
    Ok(format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: seimon-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        authority(name, port)
    )
    .into_bytes())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// `false`: there was more than is read.
    pub(super) whole: bool,
}

/// An answer as its bytes come in.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Not yet understood.
    raw: Vec<u8>,
    head: Option<Head>,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    framing: Framing,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    /// Bytes still to come.
    Length(usize),
    Chunks(Chunk),
    UntilEnd,
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    Size,
    Data(usize),
    DataEnd,
    Trailer,
}

impl Reading {
    pub(super) fn head_is_read(&self) -> bool {
        self.head.is_some()
    }

    /// The answer when it is complete or as long as may be.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Answer>, HttpError> {
        self.raw.extend_from_slice(bytes);
        let mut head = match self.head {
            Some(head) => head,
            None => match self.read_head()? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let complete = self.read_body(&mut head.framing)?;
        self.head = Some(head);
        let full = self.body.len() >= MOST;
        Ok((complete || full).then(|| self.answer(head.status, complete)))
    }

    /// The peer has hung up.
    pub(super) fn end(&mut self) -> Result<Answer, HttpError> {
        match self.head {
            Some(Head { status, framing: Framing::UntilEnd }) => Ok(self.answer(status, true)),
            Some(Head { framing: Framing::Length(_) | Framing::Chunks(_), .. }) | None => {
                Err(HttpError::EndedEarly)
            }
        }
    }

    fn answer(&mut self, status: u16, whole: bool) -> Answer {
        Answer { status, body: std::mem::take(&mut self.body), whole }
    }

    /// Reads over interim answers (1xx).
    fn read_head(&mut self) -> Result<Option<Head>, HttpError> {
        loop {
            let Some(length) = find(&self.raw, b"\r\n\r\n").map(|at| at + 4) else {
                return if self.raw.len() > MOST_HEAD { Err(HttpError::LongHead) } else { Ok(None) };
            };
            if length > MOST_HEAD {
                return Err(HttpError::LongHead);
            }
            let head = parse_head(&self.raw[..length])?;
            self.raw.drain(..length);
            if !(100..200).contains(&head.status) {
                return Ok(Some(head));
            }
        }
    }

    /// Moves what it can from `raw` to `body`; true when the body is complete.
    fn read_body(&mut self, framing: &mut Framing) -> Result<bool, HttpError> {
        match framing {
            Framing::UntilEnd => {
                self.take(usize::MAX);
                Ok(false)
            }
            Framing::Length(left) => {
                *left -= self.take(*left);
                Ok(*left == 0)
            }
            Framing::Chunks(chunk) => self.read_chunks(chunk),
        }
    }

    fn read_chunks(&mut self, chunk: &mut Chunk) -> Result<bool, HttpError> {
        loop {
            match chunk {
                Chunk::Size | Chunk::Trailer => {
                    let Some(at) = find(&self.raw, b"\r\n") else {
                        return if self.raw.len() > MOST_SIZE_LINE {
                            Err(HttpError::Chunk)
                        } else {
                            Ok(false)
                        };
                    };
                    let line: Vec<u8> = self.raw.drain(..at + 2).take(at).collect();
                    match (&chunk, line.as_slice()) {
                        (Chunk::Trailer, []) => return Ok(true),
                        (Chunk::Trailer, _) => {}
                        (Chunk::Size | Chunk::Data(_) | Chunk::DataEnd, line) => {
                            *chunk = match chunk_size(line)? {
                                0 => Chunk::Trailer,
                                size => Chunk::Data(size),
                            };
                        }
                    }
                }
                Chunk::Data(left) => {
                    *left -= self.take(*left);
                    if *left > 0 {
                        return Ok(false);
                    }
                    *chunk = Chunk::DataEnd;
                }
                Chunk::DataEnd => {
                    if self.raw.len() < 2 {
                        return Ok(false);
                    }
                    if !self.raw.starts_with(b"\r\n") {
                        return Err(HttpError::Chunk);
                    }
                    self.raw.drain(..2);
                    *chunk = Chunk::Size;
                }
            }
        }
    }

    /// Moves at most `most` bytes; what is beyond [`MOST`] of the body is thrown away. Returns how many were moved.
    fn take(&mut self, most: usize) -> usize {
        let length = most.min(self.raw.len());
        let room = MOST.saturating_sub(self.body.len()).min(length);
        self.body.extend_from_slice(&self.raw[..room]);
        self.raw.drain(..length);
        length
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(HttpError::NotHttp),
    }
    let status = response.code.ok_or(HttpError::NotHttp)?;
    let of = |name: &'static str| {
        response
            .headers
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value.trim_ascii())
    };
    let mut codings = of("transfer-encoding");
    let mut lengths = of("content-length");
    let framing = match (codings.next(), lengths.next()) {
        _ if status == 204 || status == 304 => Framing::Length(0),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() => {
            Framing::Chunks(Chunk::Size)
        }
        (Some(_), _) => return Err(HttpError::Length),
        (None, Some(length)) => {
            if lengths.any(|other| other != length) {
                return Err(HttpError::Length);
            }
            Framing::Length(digits(length, 10).ok_or(HttpError::Length)?)
        }
        (None, None) => Framing::UntilEnd,
    };
    Ok(Head { status, framing })
}

fn chunk_size(line: &[u8]) -> Result<usize, HttpError> {
    let size = line.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    digits(size, 16).ok_or(HttpError::Chunk)
}

/// Digits only: no sign, nothing around them.
fn digits(text: &[u8], radix: u32) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    let only_digits = text.chars().all(|c| c.is_digit(radix));
    if only_digits { usize::from_str_radix(text, radix).ok() } else { None }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of `size` bytes, then the end.
    fn read(text: &[u8], size: usize) -> Result<Answer, HttpError> {
        let mut reading = Reading::default();
        for piece in text.chunks(size) {
            if let Some(answer) = reading.push(piece)? {
                return Ok(answer);
            }
        }
        reading.end()
    }

    #[test]
    fn every_framing_gives_the_same_body_however_the_bytes_arrive() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\nhello, and more than was promised",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            for size in [1, 2, 7, 4096] {
                let answer = Answer { status: 200, body: b"hello".to_vec(), whole: true };
                let read = read(text.as_bytes(), size).map(|mut read| {
                    read.body.truncate(5);
                    read
                });
                assert_eq!(read, Ok(answer), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_not_a_clear_answer_is_an_error() {
        for (text, error) in [
            ("SSH-2.0-OpenSSH\r\n\r\n", HttpError::NotHttp),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", HttpError::EndedEarly),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", HttpError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", HttpError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", HttpError::Length),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HttpError::Length),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
                HttpError::Length,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", HttpError::Chunk),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nheXX", HttpError::Chunk),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", HttpError::Chunk),
            ("HTTP/1.1 200 OK\r\n", HttpError::EndedEarly),
            ("", HttpError::EndedEarly),
        ] {
            assert_eq!(read(text.as_bytes(), 3), Err(error), "{text:?}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 2 * MOST_HEAD]].concat();
        assert_eq!(read(&endless, 4096), Err(HttpError::LongHead));
        let endless =
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;".as_slice(), &[b'x'; 1000]].concat();
        assert_eq!(read(&endless, 100), Err(HttpError::Chunk));
    }

    #[test]
    fn an_endless_body_is_cut_at_its_limit() {
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"] {
            let text = [head.as_bytes(), &vec![b'x'; 2 * MOST]].concat();
            let answer = read(&text, 4096).expect("an answer");
            assert_eq!((answer.body.len(), answer.whole), (MOST, false));
        }
    }

    #[test]
    fn a_request_cannot_be_split_by_its_path_or_name() {
        assert!(request("a.example", 443, "/x\r\nEvil: 1").is_err());
        assert!(request("a.example\r\n", 443, "/").is_err());
        assert!(request("a.example", 443, "x").is_err());
        let text = String::from_utf8(request("a.example", 8443, "/h").expect("valid")).expect("text");
        assert!(text.starts_with("GET /h HTTP/1.1\r\nHost: a.example:8443\r\n"), "{text}");
    }
}
