//! Checkpoints: the whole of a shard in a local file, with the changelog offset it stands for.
//!
//! A checkpoint is a convenience, never the truth: when the file is missing, torn or of another
//! changelog, the shard is rebuilt from the changelog alone.
//!
//! Layout (little-endian): magic `CDCP`, version `u32`, changelog offset `i64`, time `i64`, length of
//! the changelog's name `u32`, the name, entry count `u64`, for each entry `u32` key length, `u32` value length, key, value; then the CRC-32 of all before.

use super::Shard;
use crate::domain::Timestamp;
use flate2::Crc;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 4] = b"CDCP";
const VERSION: u32 = 2;
/// A changelog's name is shorter.
const NAME_BYTES_MAX: u32 = 4_096;

/// What a checkpoint stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which changelog of which log: another one's offsets mean something else.
    pub changelog: String,
    /// Everything below this offset of the changelog is in the shard.
    pub offset: i64,
    /// When the offset was known to be right. Compaction keeps a tombstone for a while only, so an
    /// old checkpoint could bring back what was removed.
    pub at: Timestamp,
}

/// Where the checkpoint of one partition's state lives below a state folder.
pub fn path(folder: &Path, reader: &str, partition: i32) -> PathBuf {
    folder.join(reader).join(format!("{partition}.checkpoint"))
}

/// Writes `shard` as it is at `mark`. The file appears whole or not at all.
///
/// # Errors
/// When the folder cannot be written; the former checkpoint, if any, stays.
pub fn write(path: &Path, shard: &Shard, mark: &Mark) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension("unfinished");
    let mut out = Summed {
        inner: BufWriter::with_capacity(1 << 20, File::create(&unfinished)?),
        crc: Crc::new(),
    };
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&mark.offset.to_le_bytes())?;
    out.write_all(&mark.at.0.to_le_bytes())?;
    out.write_all(&(mark.changelog.len() as u32).to_le_bytes())?;
    out.write_all(mark.changelog.as_bytes())?;
    out.write_all(&(shard.len() as u64).to_le_bytes())?;
    for (key, value) in shard.iter() {
        out.write_all(&(key.len() as u32).to_le_bytes())?;
        out.write_all(&(value.len() as u32).to_le_bytes())?;
        out.write_all(key)?;
        out.write_all(value)?;
    }
    let sum = out.crc.sum();
    let mut file = out.inner;
    file.write_all(&sum.to_le_bytes())?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    fs::rename(&unfinished, path)
}

/// Reads a checkpoint back: the shard and what it stands for.
///
/// # Errors
/// When there is no file, or it is not a whole checkpoint of this version.
pub fn read(path: &Path) -> io::Result<(Shard, Mark)> {
    let file = File::open(path)?;
    let mut left = file.metadata()?.len();
    let mut input = Summed {
        inner: BufReader::with_capacity(1 << 20, file),
        crc: Crc::new(),
    };
    let mut word = [0; 4];
    let mut long = [0; 8];
    input.read_exact(&mut word)?;
    let mut version = [0; 4];
    input.read_exact(&mut version)?;
    if &word != MAGIC || u32::from_le_bytes(version) != VERSION {
        return Err(torn("not a checkpoint of this version"));
    }
    input.read_exact(&mut long)?;
    let offset = i64::from_le_bytes(long);
    input.read_exact(&mut long)?;
    let at = Timestamp(i64::from_le_bytes(long));
    input.read_exact(&mut word)?;
    let length = u32::from_le_bytes(word);
    if length > NAME_BYTES_MAX {
        return Err(torn("the changelog's name is too long"));
    }
    let mut name = vec![0; length as usize];
    input.read_exact(&mut name)?;
    let mark = Mark {
        changelog: String::from_utf8(name)
            .map_err(|_| torn("the changelog's name is not UTF-8"))?,
        offset,
        at,
    };
    input.read_exact(&mut long)?;
    let count = u64::from_le_bytes(long);
    if count > left / 8 {
        return Err(torn("more entries than the file can hold"));
    }
    let mut shard = Shard::new();
    shard.reserve(count as usize);
    let mut entry = Vec::new();
    for _ in 0..count {
        input.read_exact(&mut word)?;
        let key = u32::from_le_bytes(word) as usize;
        input.read_exact(&mut word)?;
        let value = u32::from_le_bytes(word) as usize;
        let length = (key + value) as u64;
        left = left
            .checked_sub(length)
            .ok_or_else(|| torn("an entry is longer than the file"))?;
        entry.resize(key + value, 0);
        input.read_exact(&mut entry)?;
        shard.load(&entry[..key], Some(&entry[key..]));
    }
    let sum = input.crc.sum();
    input.inner.read_exact(&mut word)?;
    if u32::from_le_bytes(word) != sum {
        return Err(torn("the checksum does not match"));
    }
    Ok((shard, mark))
}

fn torn(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Sums what passes through.
struct Summed<T> {
    inner: T,
    crc: Crc,
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.crc.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::State;

    fn sample() -> Shard {
        let mut shard = Shard::new();
        for n in 0..1_000u32 {
            shard.load(&n.to_be_bytes(), Some(format!("value {n}").as_bytes()));
        }
        shard
    }

    fn mark() -> Mark {
        Mark {
            changelog: "cluster/topic[3]".into(),
            offset: 42,
            at: Timestamp(7),
        }
    }

    #[test]
    fn a_checkpoint_reads_back_whole() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = path(folder.path(), "stock-ledger", 3);
        write(&file, &sample(), &mark()).expect("written");
        let (shard, found) = read(&file).expect("read");
        assert_eq!((shard.len(), found), (1_000, mark()));
        assert_eq!(shard.get(&7u32.to_be_bytes()), Some(&b"value 7"[..]));
    }

    #[test]
    fn a_torn_or_altered_checkpoint_is_refused_at_every_byte() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = path(folder.path(), "stock-ledger", 0);
        let mut small = Shard::new();
        small.load(b"key", Some(b"value"));
        write(&file, &small, &mark()).expect("written");
        let whole = fs::read(&file).expect("bytes");
        for cut in 0..whole.len() {
            fs::write(&file, &whole[..cut]).expect("cut");
            assert!(read(&file).is_err(), "cut at {cut}");
            let mut altered = whole.clone();
            altered[cut] ^= 0x40;
            fs::write(&file, &altered).expect("altered");
            assert!(read(&file).is_err(), "altered at {cut}");
        }
    }
}
