//! The files of a shard's tar. Pure.

use crate::LakeError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::Read as _;

/// By name; what is written of a sample beside its bytes is there, too.
pub fn read(name: &str, tar: &[u8]) -> Result<BTreeMap<String, Bytes>, LakeError> {
    let read = || -> std::io::Result<BTreeMap<String, Bytes>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(name, content.into());
        }
        Ok(files)
    };
    read().map_err(|error| LakeError::Tar { name: name.into(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_a_tar_that_is_cut_off_is_named() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(700);
        builder.append_data(&mut header, "a.png", &[7; 700][..]).unwrap();
        let whole = builder.into_inner().unwrap();
        assert_eq!(read("shards/a.tar", &whole).unwrap()["a.png"], vec![7; 700]);
        let error = read("shards/a.tar", &whole[..900]).unwrap_err().to_string();
        assert!(error.starts_with("shards/a.tar: no tar, or cut off: "), "{error}");
    }
}
