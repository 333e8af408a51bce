// Package otpq holds the tests of the project as a whole, such as who may
// import whom. It is not a library: programs import its folders, first of all
// enqueue, and people run cmd/otpq.
package otpq
