use super::Builtin::{self, Simple, SimpleIdentity, SimpleString};
use super::*;
use crate::request::Contents;
use bytes::Bytes;
use proptest::prelude::*;

fn given(of: Builtin, name: &str, shape: &[i64], contents: Contents) -> Given {
    Given { name: name.into(), datatype: of.datatype().into(), shape: shape.into(), contents }
}

fn elements(texts: &[&str]) -> Contents {
    Contents::Elements(texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect())
}

#[test]
fn sums_and_differences_are_of_each_pair() {
    let xs: Vec<i32> = (0..16).collect();
    let raw = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let ys = given(Simple, "INPUT1", &[1, 16], Contents::Integers(vec![i32::MAX; 16]));
    let inputs = vec![ys, given(Simple, "INPUT0", &[1, 16], Contents::Raw(raw))];
    let outputs = Simple.answer(inputs, Vec::new(), Form::Raw).unwrap();
    let of = |f: fn(i32, i32) -> i32| Values::Int32(xs.iter().map(|x| f(*x, i32::MAX)).collect());
    assert_eq!(outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), OUTPUTS);
    assert_eq!([&outputs[0].values, &outputs[1].values], [&of(i32::wrapping_add), &of(i32::wrapping_sub)]);
    assert_eq!(outputs[0].shape, [1, 16]);
}

#[test]
fn numbers_that_are_texts_are_added_and_subtracted_as_such() {
    let xs: Vec<String> = (0..16).map(|x: i32| x.to_string()).collect();
    let inputs = vec![
        given(SimpleString, "INPUT0", &[1, 16], Contents::Strings(xs)),
        given(SimpleString, "INPUT1", &[1, 16], elements(&["-1"; 16])),
    ];
    let outputs = SimpleString.answer(inputs, Vec::new(), Form::Typed).unwrap();
    let of = |by: i32| Values::Bytes((0..16).map(|x: i32| (x + by).to_string().into()).collect());
    assert_eq!([&outputs[0].values, &outputs[1].values], [&of(-1), &of(1)]);
}

#[test]
fn what_is_no_input_of_theirs_is_told() {
    let ones = |rows: i64| Contents::Doubles(vec![1.0; rows as usize * 16]);
    let check = |of: Builtin, inputs: Vec<Given>, expected: &str| {
        let told = of.answer(inputs, Vec::new(), Form::Typed).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    };
    let input = |name, shape: &[i64], contents| given(Simple, name, shape, contents);
    let first = || input("INPUT0", &[1, 16], ones(1));
    check(Simple, vec![first()], "input \"INPUT1\" has neither data nor binary_data_size");
    check(Simple, vec![first(), first()], "is given twice");
    check(Simple, vec![input("x", &[1, 16], ones(1))], "input \"x\"; the model takes \"INPUT0\" and \"INPUT1\"");
    let shape = "has shape [9, 16]; the model takes [-1, 16], the first being 1 to 8";
    check(Simple, vec![input("INPUT0", &[9, 16], ones(9)), first()], "is given twice");
    check(Simple, vec![input("INPUT0", &[9, 16], ones(9))], shape);
    check(Simple, vec![input("INPUT0", &[2, 16], ones(1))], "has 16 numbers; shape [2, 16] needs 32");
    let second = input("INPUT1", &[2, 16], ones(2));
    check(Simple, vec![first(), second], "\"INPUT1\" has shape [2, 16]; the model takes [1, 16]");
    let of = |contents| vec![input("INPUT0", &[1, 16], contents)];
    check(Simple, of(Contents::Doubles(vec![1.5; 16])), "has 1.5; an INT32 tensor is sent as");
    check(Simple, of(Contents::Doubles(vec![3e9; 16])), "has 3000000000; an INT32 tensor");
    check(Simple, of(Contents::Raw(vec![0; 63].into())), "has 63 bytes; shape [1, 16] of INT32 needs 64");

    let of = |contents| vec![given(SimpleString, "INPUT0", &[1, 16], contents)];
    check(SimpleString, of(elements(&["one"; 16])), "has \"one\" at 0; whole numbers of 32 bits");
    check(SimpleString, of(elements(&["1"; 15])), "has 15 elements; shape [1, 16] needs 16");

    let of = |shape: &[i64], contents| vec![given(SimpleIdentity, "INPUT0", shape, contents)];
    check(
        SimpleIdentity,
        of(&[2], elements(&["a"; 2])),
        "has shape [2]; the model takes [-1, -1], the first being 1 to 8",
    );
    check(SimpleIdentity, of(&[1, -1], elements(&[])), "has shape [1, -1]; the model takes [-1, -1]");
    check(SimpleIdentity, of(&[8, i64::MAX], elements(&[])), "the model takes [-1, -1]");
    check(SimpleIdentity, of(&[1, 1], Contents::Doubles(vec![1.0])), "has numbers as elements; BYTES are sent raw");
    let empty = |columns: usize| of(&[8, columns as i64], elements(&vec![""; 8 * columns]));
    check(SimpleIdentity, empty(1025), "\"INPUT0\" has 1025 columns; the model takes 1024 at most");
    assert_eq!(SimpleIdentity.answer(empty(1024), Vec::new(), Form::Raw).unwrap()[0].shape, [8, 1024]);
    let many = Contents::Raw(vec![0; 40].into());
    check(SimpleIdentity, of(&[1, 1], many), "has 10 elements; shape [1, 1] needs 1");
    let short = Contents::Raw(Bytes::from_static(&[2, 0, 0, 0, 7]));
    check(SimpleIdentity, of(&[1, 1], short), "do not add up to its 5 bytes");
}

proptest! {
    #[test]
    fn any_bytes_come_back_as_they_were(rows in 1..=8_usize, row in prop::collection::vec(any::<Vec<u8>>(), 0..5)) {
        let elements: Vec<Bytes> = (0..rows).flat_map(|_| row.iter().cloned().map(Bytes::from)).collect();
        let shape = [rows as i64, row.len() as i64];
        for contents in [Contents::Elements(elements.clone()), Contents::Raw(crate::wire::raw_bytes(&elements))] {
            let input = given(SimpleIdentity, "INPUT0", &shape, contents);
            let [output] = <[Answered; 1]>::try_from(SimpleIdentity.answer(vec![input], Vec::new(), Form::Raw).unwrap())
                .expect("one output");
            prop_assert_eq!((&output.shape[..], output.values), (&shape[..], Values::Bytes(elements.clone())));
        }
    }
}
