//! The loader and the machine themselves.

use super::{ALLOW, Data, LONGEST, Program, sock_filter};

/// Programs that neither this loader nor the kernel takes, each with the reason.
pub fn malformed() -> Vec<(&'static str, Vec<[u8; 8]>)> {
    let allow = sock_filter(0x06, 0, 0, ALLOW);
    let nothing = sock_filter(0x00, 0, 0, 0);
    vec![
        ("half word load", vec![sock_filter(0x28, 0, 0, 0), allow]),
        ("indirect load", vec![sock_filter(0x40, 0, 0, 0), allow]),
        ("modulo", vec![sock_filter(0x94, 0, 0, 3), allow]),
        ("return X", vec![allow, sock_filter(0x0e, 0, 0, 0)]),
        ("unaligned load", vec![sock_filter(0x20, 0, 0, 2), allow]),
        ("load beyond the data", vec![sock_filter(0x20, 0, 0, 64), allow]),
        ("division by zero", vec![sock_filter(0x34, 0, 0, 0), allow]),
        ("left shift by 32", vec![sock_filter(0x64, 0, 0, 32), allow]),
        ("right shift by 32", vec![sock_filter(0x74, 0, 0, 32), allow]),
        ("memory cell 16", vec![sock_filter(0x02, 0, 0, 16), allow]),
        ("unset memory cell", vec![sock_filter(0x60, 0, 0, 3), allow]),
        (
            "memory cell unset on one path",
            vec![
                sock_filter(0x15, 1, 0, 0),
                sock_filter(0x02, 0, 0, 3),
                sock_filter(0x60, 0, 0, 3),
                allow,
            ],
        ),
        ("jump to the end", vec![sock_filter(0x05, 0, 0, 1), allow]),
        ("jump backwards", vec![nothing, sock_filter(0x05, 0, 0, u32::MAX), allow]),
        ("true branch to the end", vec![sock_filter(0x15, 1, 0, 0), allow]),
        ("false branch to the end", vec![sock_filter(0x15, 0, 1, 0), allow]),
        ("no return", vec![allow, nothing]),
        ("no instruction", vec![]),
        ("4097 instructions", vec![allow; LONGEST + 1]),
    ]
}

fn result(instructions: &[[u8; 8]], data: &Data) -> u32 {
    Program::load(instructions.as_flattened()).unwrap().run(data)
}

#[test]
fn malformed_programs_are_refused() {
    for (what, instructions) in malformed() {
        assert!(Program::load(instructions.as_flattened()).is_err(), "{what}");
    }
    assert!(Program::load(&[6, 0, 0, 0, 0, 0, 0xff]).is_err());
    assert!(Program::load(&[sock_filter(6, 0, 0, 0); LONGEST].concat()).is_ok());
}

#[test]
fn arithmetic_wraps_and_has_32_bits() {
    let data = Data::new(0, 0, &[0; 6]);
    for (code, a, k, expected) in [
        (0x04, u32::MAX, 2, 1),
        (0x14, 1, 2, u32::MAX),
        (0x24, 0x8000_0001, 2, 2),
        (0x34, 7, 2, 3),
        (0x44, 5, 2, 7),
        (0x54, 7, 2, 2),
        (0x64, 0x8000_0001, 31, 0x8000_0000),
        (0x74, 0x8000_0000, 31, 1),
        (0xa4, 7, 2, 5),
        (0x84, 1, 0, u32::MAX),
    ] {
        let with_k =
            [sock_filter(0x00, 0, 0, a), sock_filter(code, 0, 0, k), sock_filter(0x16, 0, 0, 0)];
        assert_eq!(result(&with_k, &data), expected, "{code:#x}");
        if code != 0x84 {
            let [set, _, end] = with_k;
            let with_x = [sock_filter(0x01, 0, 0, k), set, sock_filter(code + 8, 0, 0, 0), end];
            assert_eq!(result(&with_x, &data), expected, "{code:#x} with X");
        }
    }
    let by_x =
        [sock_filter(0x00, 0, 0, 5), sock_filter(0x3c, 0, 0, 0), sock_filter(0x06, 0, 0, ALLOW)];
    assert_eq!(result(&by_x, &data), 0);
}

#[test]
fn branches_compare_without_sign() {
    for (code, a, k, taken) in [
        (0x15, 5, 5, true),
        (0x15, 5, 6, false),
        (0x25, u32::MAX, 1, true),
        (0x25, 1, 1, false),
        (0x35, 1, 1, true),
        (0x35, 0, 1, false),
        (0x45, 6, 2, true),
        (0x45, 6, 1, false),
    ] {
        let program = [
            sock_filter(0x20, 0, 0, 0),
            sock_filter(code, 1, 0, k),
            sock_filter(0x06, 0, 0, 10),
            sock_filter(0x06, 0, 0, 20),
        ];
        let expected = if taken { 20 } else { 10 };
        assert_eq!(result(&program, &Data::new(a, 0, &[0; 6])), expected, "{code:#x} {a} {k}");
    }
}

#[test]
fn loads_find_the_number_the_architecture_and_both_halves_of_an_argument() {
    let data = Data::new(1, 2, &[3, 4, 5, 6, 7, 9 << 32 | 8]);
    for (offset, expected) in [(0, 1), (4, 2), (16, 3), (20, 0), (48, 7), (56, 8), (60, 9)] {
        let program = [sock_filter(0x20, 0, 0, offset), sock_filter(0x16, 0, 0, 0)];
        assert_eq!(result(&program, &data), expected, "{offset}");
    }
}

#[test]
fn memory_and_the_index_register_keep_values() {
    let program = [
        sock_filter(0x20, 0, 0, 0),
        sock_filter(0x02, 0, 0, 15),
        sock_filter(0x07, 0, 0, 0),
        sock_filter(0x80, 0, 0, 0),
        sock_filter(0x0c, 0, 0, 0),
        sock_filter(0x61, 0, 0, 15),
        sock_filter(0x0c, 0, 0, 0),
        sock_filter(0x16, 0, 0, 0),
    ];
    assert_eq!(result(&program, &Data::new(3, 0, &[0; 6])), 64 + 3 + 3);
}

#[test]
fn what_depends_on_an_argument_is_not_constant() {
    let load = |offset| {
        let instructions = [
            sock_filter(0x20, 0, 0, offset),
            sock_filter(0x15, 0, 1, 7),
            sock_filter(0x06, 0, 0, ALLOW),
            sock_filter(0x06, 0, 0, 0x0005_0001),
        ];
        Program::load(instructions.as_flattened()).unwrap()
    };
    assert!(load(0).is_constant_allow(7, 1) && !load(0).is_constant_allow(8, 1));
    assert!(load(4).is_constant_allow(0, 7) && !load(4).is_constant_allow(0, 8));
    assert!(!load(8).is_constant_allow(7, 7) && !load(16).is_constant_allow(7, 7));
}
