package faulttest_test

var postgresFaults = []fault{}
