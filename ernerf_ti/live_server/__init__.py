"""A web server that shows live portraits: pages over WebRTC, sound over WebSockets; recordings, cameras and streams."""
