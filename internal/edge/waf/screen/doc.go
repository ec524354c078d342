// Package screen proves requests clean: that no rule of the request phases of a SecLang
// configuration, such as the Core Rule Set at one paranoia level, would match, so that the
// engine behind it would give no score and take no action. What is not proved is the engine's:
// a verdict of the screen is never "attack", only Clean or a reason why there is no proof.
//
// DESIGN.md in this folder says what is proved, why it is sound, and what is missing.
package screen
