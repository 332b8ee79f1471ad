//! Classic BPF as the kernel takes it from seccomp: `bpf_check_classic`, `seccomp_check_filter`,
//! the machine, and the action cache's `seccomp_is_const_allow`.

pub mod checks;

/// `BPF_MAXINSNS`.
const LONGEST: usize = 4096;
/// `sizeof(struct seccomp_data)`.
const DATA_SIZE: u32 = 64;
/// `BPF_MEMWORDS`.
const MEMORY: usize = 16;

pub const ALLOW: u32 = 0x7fff_0000;

/// `struct seccomp_data`, as the 32-bit words that a program can load.
#[derive(Clone, Copy, Debug)]
pub struct Data([u32; DATA_SIZE as usize / 4]);

impl Data {
    pub const NR: usize = 0;
    pub const ARCH: usize = 1;

    pub fn new(nr: u32, arch: u32, arguments: &[u64; 6]) -> Self {
        // Word 2 and 3 are the instruction pointer.
        let mut words = [0x7fff_7fff; 16];
        words[Self::NR] = nr;
        words[Self::ARCH] = arch;
        let mut word = Self::low_half(0);
        for argument in arguments {
            words[word] = *argument as u32;
            words[word + 1] = (*argument >> 32) as u32;
            word += 2;
        }
        Self(words)
    }

    /// The word with the low half of an argument: both architectures are little-endian.
    pub const fn low_half(argument: usize) -> usize {
        4 + 2 * argument
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Register {
    A,
    X,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Source {
    K(u32),
    X,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Or,
    And,
    Lsh,
    Rsh,
    Xor,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Instruction {
    /// `A = word`, by index.
    Word(usize),
    Set(Register, u32),
    Recall(Register, usize),
    Store(Register, usize),
    Alu(Alu, Source),
    Negate,
    Jump(u32),
    Branch(Test, Source, u8, u8),
    Return(Option<u32>),
    /// `X = A`.
    Tax,
    /// `A = X`.
    Txa,
}

use Instruction::*;

impl Instruction {
    /// Reads one `struct sock_filter`; only what `seccomp_check_filter` lets through has a form.
    fn decode(bytes: &[u8; 8]) -> Result<Self, String> {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let (jt, jf) = (bytes[2], bytes[3]);
        let k = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let cell = |make: fn(Register, usize) -> Self, register| match k as usize {
            index if index < MEMORY => Ok(make(register, index)),
            index => Err(format!("no memory cell {index}")),
        };
        let source = if code & 0x08 == 0 { Source::K(k) } else { Source::X };
        match code {
            0x20 if k.is_multiple_of(4) && k < DATA_SIZE => Ok(Word(k as usize / 4)),
            0x20 => Err(format!("load at {k}")),
            0x00 => Ok(Set(Register::A, k)),
            0x01 => Ok(Set(Register::X, k)),
            0x80 => Ok(Set(Register::A, DATA_SIZE)),
            0x81 => Ok(Set(Register::X, DATA_SIZE)),
            0x60 => cell(Recall, Register::A),
            0x61 => cell(Recall, Register::X),
            0x02 => cell(Store, Register::A),
            0x03 => cell(Store, Register::X),
            0x04 | 0x0c => Ok(Alu(Alu::Add, source)),
            0x14 | 0x1c => Ok(Alu(Alu::Sub, source)),
            0x24 | 0x2c => Ok(Alu(Alu::Mul, source)),
            0x34 if k == 0 => Err("division by zero".into()),
            0x34 | 0x3c => Ok(Alu(Alu::Div, source)),
            0x44 | 0x4c => Ok(Alu(Alu::Or, source)),
            0x54 | 0x5c => Ok(Alu(Alu::And, source)),
            0x64 | 0x74 if k >= 32 => Err(format!("shift by {k}")),
            0x64 | 0x6c => Ok(Alu(Alu::Lsh, source)),
            0x74 | 0x7c => Ok(Alu(Alu::Rsh, source)),
            0x84 => Ok(Negate),
            0xa4 | 0xac => Ok(Alu(Alu::Xor, source)),
            0x05 => Ok(Jump(k)),
            0x15 | 0x1d => Ok(Branch(Test::Equal, source, jt, jf)),
            0x25 | 0x2d => Ok(Branch(Test::Greater, source, jt, jf)),
            0x35 | 0x3d => Ok(Branch(Test::GreaterOrEqual, source, jt, jf)),
            0x45 | 0x4d => Ok(Branch(Test::AnyBit, source, jt, jf)),
            0x06 => Ok(Return(Some(k))),
            0x16 => Ok(Return(None)),
            0x07 => Ok(Tax),
            0x87 => Ok(Txa),
            _ => Err(format!("opcode {code:#04x}")),
        }
    }
}

impl Test {
    fn holds(self, a: u32, operand: u32) -> bool {
        match self {
            Self::Equal => a == operand,
            Self::Greater => a > operand,
            Self::GreaterOrEqual => a >= operand,
            Self::AnyBit => a & operand != 0,
        }
    }
}

/// A program that the kernel would load.
#[derive(PartialEq, Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    pub fn load(bytes: &[u8]) -> Result<Self, String> {
        let (instructions, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || instructions.is_empty() || instructions.len() > LONGEST {
            return Err(format!("{} bytes long", bytes.len()));
        }
        let at = |(pc, bytes)| Instruction::decode(bytes).map_err(|what| format!("{pc}: {what}"));
        let program = Self(instructions.iter().enumerate().map(at).collect::<Result<_, _>>()?);
        program.check_flow()?;
        Ok(program)
    }

    /// Jumps go forward and stay inside and the last instruction returns, so every path ends in a
    /// return; no path recalls a memory cell that it has not stored.
    fn check_flow(&self) -> Result<(), String> {
        let mut stored_on_arrival = vec![u16::MAX; self.0.len()];
        let mut stored = 0u16;
        for (pc, instruction) in self.0.iter().enumerate() {
            stored &= stored_on_arrival[pc];
            let distances = match *instruction {
                Store(_, cell) => {
                    stored |= 1 << cell;
                    continue;
                }
                Recall(_, cell) if stored & (1 << cell) == 0 => {
                    return Err(format!("{pc}: memory cell {cell} may be unset"));
                }
                Jump(distance) => [distance, distance],
                Branch(_, _, jt, jf) => [jt.into(), jf.into()],
                _ => continue,
            };
            for distance in distances {
                let target = stored_on_arrival.get_mut(pc + 1 + distance as usize);
                *target.ok_or_else(|| format!("{pc}: jump by {distance}"))? &= stored;
            }
            stored = u16::MAX;
        }
        match self.0.last() {
            Some(Return(_)) => Ok(()),
            _ => Err("the last instruction does not return".into()),
        }
    }

    pub fn run(&self, data: &Data) -> u32 {
        let instructions = self.0.as_slice();
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY]);
        let mut pc = 0;
        loop {
            let instruction = instructions[pc];
            pc += 1;
            match instruction {
                Word(index) => a = data.0[index],
                Set(Register::A, k) => a = k,
                Set(Register::X, k) => x = k,
                Recall(Register::A, cell) => a = memory[cell],
                Recall(Register::X, cell) => x = memory[cell],
                Store(Register::A, cell) => memory[cell] = a,
                Store(Register::X, cell) => memory[cell] = x,
                Alu(operation, source) => {
                    let operand = if let Source::K(k) = source { k } else { x };
                    a = match operation {
                        Alu::Add => a.wrapping_add(operand),
                        Alu::Sub => a.wrapping_sub(operand),
                        Alu::Mul => a.wrapping_mul(operand),
                        // A division by a zero X ends the program with 0.
                        Alu::Div if operand == 0 => return 0,
                        Alu::Div => a / operand,
                        Alu::Or => a | operand,
                        Alu::And => a & operand,
                        Alu::Lsh => a.wrapping_shl(operand),
                        Alu::Rsh => a.wrapping_shr(operand),
                        Alu::Xor => a ^ operand,
                    };
                }
                Negate => a = a.wrapping_neg(),
                Jump(distance) => pc += distance as usize,
                Branch(test, source, jt, jf) => {
                    let operand = if let Source::K(k) = source { k } else { x };
                    pc += usize::from(if test.holds(a, operand) { jt } else { jf });
                }
                Return(Some(k)) => return k,
                Return(None) => return a,
                Tax => x = a,
                Txa => a = x,
            }
        }
    }

    /// Whether the kernel's action cache lets this call pass without running the program. It knows
    /// the number and the architecture, and gives up at any other load and most instructions.
    pub fn is_constant_allow(&self, nr: u32, arch: u32) -> bool {
        let mut a = 0;
        let mut pc = 0;
        loop {
            let instruction = self.0[pc];
            pc += 1;
            match instruction {
                Word(Data::NR) => a = nr,
                Word(Data::ARCH) => a = arch,
                Return(Some(k)) => return k == ALLOW,
                Jump(distance) => pc += distance as usize,
                Branch(test, Source::K(k), jt, jf) => {
                    pc += usize::from(if test.holds(a, k) { jt } else { jf });
                }
                Alu(Alu::And, Source::K(k)) => a &= k,
                _ => return false,
            }
        }
    }

    /// The indices of all words that the program loads.
    pub fn words(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|instruction| match instruction {
            Word(index) => Some(*index),
            _ => None,
        })
    }
}

/// One `struct sock_filter`.
pub const fn sock_filter(code: u16, jt: u8, jf: u8, k: u32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (code.to_le_bytes(), k.to_le_bytes());
    [a, b, jt, jf, c, d, e, f]
}
