/** For tests: what the scriptable engine is called and what it draws. */
export { SCRIPTED_MODEL } from './model.js';
export { type PictureKey, scriptedPicture } from './picture.js';
