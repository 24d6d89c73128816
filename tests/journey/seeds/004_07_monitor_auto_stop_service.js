async function monitorAutoStopService() {
  try {
    const response = await fetch('/api/instances/auto-stop/stats');
    const stats = await response.json();
    
    console.log('Auto-stop service status:', {
      running: stats.schedulerRunning,
      checkInterval: `${stats.checkIntervalMinutes} minutes`,
      inactivityThreshold: `${stats.defaultInactivityThresholdMinutes} minutes`
    });
    
    return stats;
  } catch (error) {
    console.error('Failed to get auto-stop stats:', error);
  }
}

// Check auto-stop service every hour
setInterval(monitorAutoStopService, 60 * 60 * 1000);
