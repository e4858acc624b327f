export { torchNoise } from './torch-noise.js';
