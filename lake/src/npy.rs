//! Tensors as NumPy writes them: what a model was asked with. Pure.

/// Numbers with a shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// Versions 1 to 3 of the format, little-endian, row by row; numbers of other kinds become the nearest `f32`.
///
/// # Errors
/// In words, what it is not.
pub fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let cut = || "cut off".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("no tensor of NumPy")?;
    let (length, rest) = match rest.split_first_chunk() {
        Some(([1, _], rest)) => {
            rest.split_first_chunk().map(|(length, rest)| (u16::from_le_bytes(*length) as usize, rest))
        }
        Some(([2 | 3, _], rest)) => {
            rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length) as usize, rest))
        }
        _ => return Err("a tensor of another version of NumPy's format".into()),
    }
    .ok_or_else(cut)?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "a header that is no text")?;
    let after = |key: &str| header.split_once(key).map(|(_, after)| after.trim_start_matches([' ', ':']));
    if after("'fortran_order'").is_none_or(|order| !order.starts_with("False")) {
        return Err("a tensor that is not row by row".into());
    }
    let shape = after("'shape'").and_then(|shape| shape.strip_prefix('(')?.split_once(')')).ok_or("no shape")?.0;
    let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<usize> = sides.map(|side| side.parse().map_err(|_| "no shape")).collect::<Result<_, _>>()?;
    let kind =
        after("'descr'").and_then(|kind| kind.strip_prefix('\'')?.split_once('\'')).ok_or("no kind of numbers")?.0;
    let values: Vec<f32> = match kind {
        "<f4" => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        "<f8" => data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
        "<i4" => data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as f32).collect(),
        "<i8" => data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f32).collect(),
        "|u1" | "|b1" => data.iter().map(|byte| f32::from(*byte)).collect(),
        "|i1" => data.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
        other => return Err(format!("a tensor of numbers {other}, which are not read")),
    };
    let need = shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
    if need != Some(values.len()) {
        return Err(format!("{} numbers for a shape of {shape:?}", values.len()));
    }
    Ok(Tensor { shape, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn tensors_are_read_and_others_told() {
        // As the router's tap writes it.
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2,), }  \n";
        let data = [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat();
        let tensor = read(&npy(header, &data)).unwrap();
        assert_eq!(tensor, Tensor { shape: vec![1, 2], values: vec![1.5, -2.0] });
        let bytes = read(&npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", &[0, 7, 255])).unwrap();
        assert_eq!(bytes, Tensor { shape: vec![3], values: vec![0.0, 7.0, 255.0] });
        let check = |bytes: &[u8], expected: &str| assert_eq!(read(bytes).unwrap_err(), expected);
        check(&npy(header, &data[..4]), "1 numbers for a shape of [1, 2]");
        check(&npy(header, &data)[..20], "cut off");
        check(&npy(&header.replace("False", "True"), &data), "a tensor that is not row by row");
        check(&npy(&header.replace("<f4", ">f4"), &data), "a tensor of numbers >f4, which are not read");
        check(b"\x89PNG", "no tensor of NumPy");
    }
}
