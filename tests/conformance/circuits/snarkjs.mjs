// Checks a circuit and a witness with snarkjs, proves and verifies: node snarkjs.mjs SNARKJS R1CS WTNS FORGED_WTNS
// The set-up is made here by one party: it is for tests alone. Without its contributions every public value would pass.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [library, r1cs, witness, forged] = process.argv.slice(2);
const snarkjs = await import(pathToFileURL(library));

const curve = await snarkjs.curves.getCurveFromName("bn128");
const { nConstraints, nVars, nOutputs, nPubInputs } = await snarkjs.r1cs.info(r1cs);
const quiet = { info() {}, debug() {}, warn() {}, error() {} };
const checked = await snarkjs.wtns.check(r1cs, witness, quiet);
const forgedChecked = await snarkjs.wtns.check(r1cs, forged, quiet);

const memory = () => ({ type: "mem" });
const [fresh, secret, powers, freshKey, key] = Array.from({ length: 5 }, memory);
await snarkjs.powersOfTau.newAccumulator(curve, 7, fresh);
await snarkjs.powersOfTau.contribute(fresh, secret, "test", "of tests");
await snarkjs.powersOfTau.preparePhase2(secret, powers);
await snarkjs.zKey.newZKey(r1cs, powers, freshKey);
await snarkjs.zKey.contribute(freshKey, key, "test", "of tests");
const verificationKey = await snarkjs.zKey.exportVerificationKey(key);
const { proof, publicSignals } = await snarkjs.groth16.prove(key, await readFile(witness));
const verified = await snarkjs.groth16.verify(verificationKey, publicSignals, proof);
const changed = publicSignals.map((signal, i) => (i ? signal : String(BigInt(signal) + 1n)));
const forgedVerified = await snarkjs.groth16.verify(verificationKey, changed, proof);

const counts = { constraints: nConstraints, wires: nVars, outputs: nOutputs, inputs: nPubInputs };
console.log(JSON.stringify({ ...counts, checked, forgedChecked, verified, forgedVerified, publicSignals }));
process.exit(0);
