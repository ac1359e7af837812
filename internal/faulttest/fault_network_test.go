package faulttest_test

var networkFaults = []fault{}
